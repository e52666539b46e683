"""Kills a training process at random moments, resumes it, and compares it with one that was left alone.

    python -m tests.faults.kills --kills 50

The processes are forked from one that has already imported everything, so a kill costs a second or two. Half of the
kills come at a random time, half a random moment after the process entered a chosen phase (waiting for data, training,
saving, measuring). Prints one JSON object.
"""

import argparse
import hashlib
import json
import mmap
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from polygrain.data.scenes import Scenes
from polygrain.train import checkpoints
from polygrain.train.ranks import Pulse
from polygrain.train.settings import PretrainSettings
from polygrain.train.setup import pretrain
from polygrain.train.stops import Stopped

PHASES = ("starting", "waiting for data", "training", "saving", "measuring")
PAUSED = 99  # beside the phases
VIT = {"embed_dim": 32, "depth": 2, "num_heads": 2, "img_size": 32, "drop_path_rate": 0.1}
HEADS = {"hidden": 32, "predictor_hidden": 32, "out": 16, "prototype_dim": 16, "prototypes": 32}
SMALL = {"large_size": 32, "small_size": 16, "small_crops": 1, "queue_size": 64, "memory_size": 64, "warmup_epochs": 1}
RUNS: dict[str, tuple[dict[str, Any], dict[str, Any], float]] = {
    "mugs": ({"encoder": "vit_tiny_64", "encoder_args": VIT}, {**HEADS, **SMALL}, 0.1),
    "vicreg": (
        {"encoder": "resnet18_64", "encoder_args": {"channels": [8, 8, 16, 16], "layers": [1, 1, 1, 1]}},
        {"large_size": 32, "expander_width": 32, "optimizer": "lars"},
        0.0,
    ),
    "vicregl": ({"encoder": "vit_tiny_64", "encoder_args": VIT}, {"large_size": 32, "expander_width": 32}, 0.0),
}


def settings(method: str, out: Path, workers: int) -> PretrainSettings:
    return PretrainSettings(
        data="scenes",
        out=str(out),
        method=method,
        epochs=4,
        batch_size=8,
        threads=1,
        workers=workers,
        log_every=1,
        checkpoint_every_steps=4,  # also in the middle of an epoch
        probe_every_epochs=1,
        resume=True,
        **RUNS[method][0],
    )


def start(
    method: str, out: Path, workers: int, images: Scenes, phase: mmap.mmap, pause: tuple[int, float] = (-1, 0.0)
) -> int:
    """A training process; writes the number of its phase into shared memory.

    Args:
        pause: a step in which it sleeps before it trains, and for how many seconds.
    """
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.setsid()
        with (out.parent / f"{out.name}.err").open("a") as told:
            os.dup2(told.fileno(), 2)
        moves = Pulse.at

        def at(self: Pulse, step: int, name: str) -> None:
            moves(self, step, name)
            if (step, name) == (pause[0], "training"):
                phase[0] = PAUSED
                time.sleep(pause[1])
            phase[0] = PHASES.index(name)

        Pulse.at = at  # type: ignore[method-assign]
        weight = RUNS[method][2]
        pretrain(settings(method, out, workers), RUNS[method][1], {"local": {"weight": weight, "width": 16}}, images)
        code = 0
    except Stopped as stopped:
        traceback.print_exc()
        code = stopped.exit_code
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def wait(pid: int) -> None:
    status = os.waitpid(pid, 0)[1]
    if status:
        raise RuntimeError(f"the process ended with status {status}")


def outcome(out: Path) -> tuple[dict[int, str], str]:
    """The loss of every step to its last digit, and a hash of the final state."""
    records = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    losses = {record["step"]: repr(record["loss"]) for record in records if "loss" in record}
    state = checkpoints.load_newest(out).state
    assert state is not None
    digest = hashlib.sha256()
    for name, value in sorted(flat(state["method"]) | flat(state["optimizer"], "optimizer/")):
        digest.update(name.encode() + value)
    return losses, digest.hexdigest()


def flat(state: Any, name: str = "") -> set[tuple[str, bytes]]:
    if isinstance(state, torch.Tensor):
        return {(name, state.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())}
    if isinstance(state, dict):
        return {entry for key, value in state.items() for entry in flat(value, f"{name}/{key}")}
    if isinstance(state, list | tuple):
        return {entry for i, value in enumerate(state) for entry in flat(value, f"{name}/{i}")}
    return {(name, repr(state).encode())}


def kill_one_run(
    method: str, folder: Path, kills: int, workers: int, images: Scenes, duration: float, rng: random.Random
) -> tuple[Path, Counter[str]]:
    """One run, killed up to `kills` times on its way."""
    out = folder / f"{method}-killed-{rng.random()}"
    phase = mmap.mmap(-1, 1)
    moments: Counter[str] = Counter()
    for _ in range(kills):
        phase[0] = 0
        pid = start(method, out, workers, images, phase)
        wanted = rng.choice(PHASES[1:]) if rng.random() < 0.5 else None
        deadline = time.monotonic() + rng.uniform(0, duration)
        while time.monotonic() < deadline or (wanted is not None and PHASES[phase[0]] != wanted):
            if os.waitpid(pid, os.WNOHANG)[0]:
                return out, moments  # it came to its end first
            time.sleep(0.0005)
        if wanted is not None:
            time.sleep(rng.uniform(0, 0.02))
        moments[PHASES[phase[0]]] += 1
        try:
            os.killpg(pid, signal.SIGKILL)
        except ProcessLookupError:  # it has no group of its own yet
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    wait(start(method, out, workers, images, phase))
    return out, moments


def kill_many(kills: int, seed: int, methods: list[str], workers: int) -> dict[str, Any]:
    """Kills until there were so many, over the methods in turn; counts resumed runs that differ."""
    rng = random.Random(seed)
    images = Scenes(40, size=40).keep()
    folder = Path(tempfile.mkdtemp(prefix="kills-"))
    done: Counter[str] = Counter()
    runs, different = 0, []
    truth: dict[str, tuple[dict[int, str], str]] = {}
    took: dict[str, float] = {}
    while done.total() < kills:
        method = methods[runs % len(methods)]
        if method not in truth:
            began = time.monotonic()
            wait(start(method, folder / method, workers, images, mmap.mmap(-1, 1)))
            truth[method], took[method] = outcome(folder / method), time.monotonic() - began
        at_most = min(4, kills - done.total())
        out, moments = kill_one_run(method, folder, at_most, workers, images, took[method] / 2, rng)
        done += moments
        runs += 1
        if outcome(out) != truth[method]:
            different.append(str(out))
        else:
            shutil.rmtree(out)
    if not different:
        shutil.rmtree(folder)
    return {"kills": done.total(), "phases": dict(done), "runs": runs, "steps": 20, "different": different}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--methods", nargs="+", default=[*RUNS])
    given = parser.parse_args()
    torch.set_num_threads(1)
    result = kill_many(given.kills, given.seed, given.methods, given.workers)
    print(json.dumps(result))
    sys.exit(bool(result["different"]))


if __name__ == "__main__":
    main()
