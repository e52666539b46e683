"""Checkpoints of a run: written aside and renamed, so that a file either is whole or does not exist."""

import os
from pathlib import Path
from typing import Any

import torch


def path_of(run: Path, step: int) -> Path:
    return run / "checkpoints" / f"step-{step:08d}.pt"


def newest(run: Path) -> Path | None:
    """The checkpoint with the highest step, None where there is none."""
    return max((run / "checkpoints").glob("step-*.pt"), default=None)


def save(run: Path, step: int, state: dict[str, Any], keep: int) -> Path:
    """Writes the state of `step` and removes all but the newest `keep` checkpoints."""
    path = path_of(run, step)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(f".{os.getpid()}.tmp")
    with aside.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
    for old in sorted(path.parent.glob("step-*.pt"))[:-keep]:
        old.unlink()
    return path


def load(path: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state
