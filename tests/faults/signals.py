"""Sends SIGTERM, SIGUSR1 and Ctrl-C to the whole process group of a run, with workers, at random moments.

    python -m tests.faults.signals --times 20

Each time the run must end within a few seconds with the right exit code and a checkpoint of its last finished step, and
leave no process behind. Prints one JSON object.
"""

import argparse
import json
import mmap
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from polygrain.data.scenes import Scenes
from polygrain.train import checkpoints
from tests.faults.kills import PHASES, start

EXPECTED = {signal.SIGTERM: 143, signal.SIGUSR1: 143, signal.SIGINT: 130}


def interrupt(number: signal.Signals, out: Path, images: Scenes, rng: random.Random) -> dict[str, Any]:
    """What became of one run."""
    phase = mmap.mmap(-1, 1)
    pid = start("mugs", out, 2, images, phase)
    while PHASES[phase[0]] == "starting":
        time.sleep(0.001)
    time.sleep(rng.uniform(0, 0.7))
    moment = PHASES[phase[0]]
    began = time.monotonic()
    os.killpg(pid, number)  # as a scheduler does: to everyone
    status = os.waitpid(pid, 0)[1]
    seconds = time.monotonic() - began
    code = os.waitstatus_to_exitcode(status)
    steps = [json.loads(line)["step"] for line in (out / "log.jsonl").read_text().splitlines()]
    saved = checkpoints.load_newest(out).state
    assert saved is not None
    finished = code == 0 and max(steps) == 20  # the signal came after the last step
    right = finished or (code == EXPECTED[number] and saved["step"] == max(steps, default=0))
    time.sleep(0.05)
    orphans = [p.name for p in Path("/proc").iterdir() if p.name.isdigit() and group(p) == pid]
    right = right and not orphans
    return {
        "right": right,
        "orphans": orphans,
        "code": code,
        "phase": moment,
        "seconds": round(seconds, 2),
        "step": saved["step"],
    }


def group(process: Path) -> int | None:
    """The process group of a living process."""
    try:
        fields = (process / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[2]) if fields[0] != "Z" else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rng = random.Random(given.seed)
    images = Scenes(40, size=40).keep()
    folder = Path(tempfile.mkdtemp(prefix="signals-"))
    results = [interrupt([*EXPECTED][i % len(EXPECTED)], folder / str(i), images, rng) for i in range(given.times)]
    wrong = [result for result in results if not result["right"]]
    if not wrong:
        shutil.rmtree(folder)
    print(json.dumps({"times": len(results), "slowest": max(r["seconds"] for r in results), "wrong": wrong}))
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
