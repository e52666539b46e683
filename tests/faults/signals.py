"""Sends SIGTERM, SIGUSR1 and Ctrl-C to the whole process group of a run, with workers, at random moments.

    python -m tests.faults.signals --times 20

Each time the run must end within a few seconds with the right exit code and a checkpoint of its last finished step, and
leave no process behind. Prints one JSON object.

    python -m tests.faults.signals --twice

Sends Ctrl-C twice within one step: the second one ends the run at once, and the last checkpoint stands.
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
from tests.faults.kills import PAUSED, PHASES, start

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


def interrupt_twice(out: Path, images: Scenes) -> dict[str, Any]:
    """What became of a run that got a second Ctrl-C before it could obey the first."""
    phase = mmap.mmap(-1, 1)
    pid = start("mugs", out, 0, images, phase, pause=(6, 20.0))
    while phase[0] != PAUSED:
        time.sleep(0.001)
    time.sleep(0.2)
    os.kill(pid, signal.SIGINT)
    time.sleep(0.5)
    went_on = os.waitpid(pid, os.WNOHANG) == (0, 0)
    began = time.monotonic()
    os.kill(pid, signal.SIGINT)
    status = os.waitpid(pid, 0)[1]
    saved = checkpoints.load_newest(out)
    assert saved.state is not None
    return {
        "went on after the first": went_on,
        "code": os.waitstatus_to_exitcode(status),
        "seconds": time.monotonic() - began,
        "step": saved.state["step"],
        "told": (out.parent / f"{out.name}.err").read_text(),
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
    parser.add_argument("--twice", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rng = random.Random(given.seed)
    images = Scenes(40, size=40).keep()
    folder = Path(tempfile.mkdtemp(prefix="signals-"))
    if given.twice:
        print(json.dumps(interrupt_twice(folder / "twice", images)))
        shutil.rmtree(folder)
        return
    results = [interrupt([*EXPECTED][i % len(EXPECTED)], folder / str(i), images, rng) for i in range(given.times)]
    wrong = [result for result in results if not result["right"]]
    if not wrong:
        shutil.rmtree(folder)
    print(json.dumps({"times": len(results), "slowest": max(r["seconds"] for r in results), "wrong": wrong}))
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
