"""Checkpoints of a run: each a file and a manifest that is written last and says what the file must be.

A checkpoint without a manifest does not exist, one whose bytes are not those of its manifest is broken: it is set aside
and the one before is taken. The order is that of the steps, never of file times.
"""

import errno
import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import torch
from torch import Tensor

from polygrain.weights.durable import write_durably
from polygrain.weights.reading import read_torch

FOLDER = "checkpoints"
SLACK = 1.05  # of the size of the tensors, for what else a file holds


class Manifest(NamedTuple):
    """What is promised of a checkpoint's file."""

    step: int
    bytes: int
    sha256: str
    healthy: bool  # no gauge hinted at dead features when it was written
    versions: Mapping[str, str]


class Loaded(NamedTuple):
    """The newest sound checkpoint, and what was found of those that are not."""

    state: dict[str, Any] | None
    complaints: list[str]


def path_of(run: Path, step: int) -> Path:
    return run / FOLDER / f"step-{step:08d}.pt"


def manifests(run: Path) -> list[Path]:
    """Those of all finished checkpoints, oldest step first."""
    found = {path: re.fullmatch(r"step-(\d+)\.json", path.name) for path in (run / FOLDER).glob("step-*.json")}
    return sorted((path for path, match in found.items() if match), key=_step_of)


def save(run: Path, step: int, state: Mapping[str, Any], *, keep: int, healthy: bool = True) -> None:
    """Writes the state of `step`, then its manifest, then removes all but the newest `keep` checkpoints.

    The newest healthy checkpoint stays in any case.

    Raises:
        OSError: when the disk has no room or refuses; what was saved before is untouched.
    """
    path = path_of(run, step)
    path.parent.mkdir(parents=True, exist_ok=True)
    _check_room(path, state)
    written = _Hashed()
    write_durably(path, lambda file: written.save(state, file))
    manifest = Manifest(
        step,
        written.bytes,
        written.sha256,
        healthy,
        {"polygrain": version("polygrain"), "torch": str(torch.__version__)},
    )
    content = json.dumps(manifest._asdict(), indent=1).encode()
    write_durably(path.with_suffix(".json"), lambda file: _write_all(file, content))
    _remove_old(run, keep)


def load_newest(run: Path, *, set_aside: bool = True) -> Loaded:
    """The newest checkpoint that is what its manifest says, and complaints about newer ones that are not.

    Args:
        set_aside: rename broken ones to *.broken, which one process of several must do.
    """
    complaints: list[str] = []
    for manifest in reversed(manifests(run)):
        problem = _problem(manifest)
        if problem is None:
            return Loaded(read_torch(manifest.with_suffix(".pt"), mapped=False), complaints)
        complaints.append(f"checkpoint {manifest.with_suffix('.pt')} is broken ({problem}); taking the one before")
        for path in (manifest, manifest.with_suffix(".pt")):
            if set_aside and path.exists():
                path.replace(path.with_name(path.name + ".broken"))
    return Loaded(None, complaints)


def read_manifest(path: Path) -> Manifest:
    """Raises ValueError when the file is none."""
    try:
        return Manifest(**json.loads(path.read_text()))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is no manifest of a checkpoint") from error


def remove_unfinished(run: Path) -> None:
    """What a killed process left behind while it wrote."""
    for path in (run / FOLDER).glob("*.tmp"):
        path.unlink(missing_ok=True)


class _Hashed:
    """Saves through a hash; an error of the disk surfaces as itself, not as the serialiser's confusion about it."""

    def __init__(self) -> None:
        self.bytes = 0
        self._hash = hashlib.sha256()
        self._file: BinaryIO | None = None
        self._error: OSError | None = None

    def save(self, state: Mapping[str, Any], file: BinaryIO) -> None:
        self._file = file
        torch.save(dict(state), cast(BinaryIO, self))
        if self._error is not None:
            raise self._error

    def write(self, data: bytes) -> int:
        assert self._file is not None
        if self._error is None:
            try:
                _write_all(self._file, data)
            except OSError as error:
                self._error = error
        self._hash.update(data)
        self.bytes += len(data)
        return len(data)

    def flush(self) -> None:
        """The caller flushes."""

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()


def _write_all(file: BinaryIO, data: bytes) -> None:
    file.write(data)


def _problem(manifest: Path) -> str | None:
    """Why a checkpoint cannot be taken, None if it can."""
    try:
        promised = read_manifest(manifest)
    except (ValueError, OSError) as error:
        return str(error)
    path = manifest.with_suffix(".pt")
    if not path.is_file():
        return "its file is missing"
    if (size := path.stat().st_size) != promised.bytes:
        return f"{size:,} bytes instead of {promised.bytes:,}"
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != promised.sha256:
            return "its bytes have changed since it was written"
    return None


def _remove_old(run: Path, keep: int) -> None:
    """Manifests go first, so that what is half removed no longer counts."""
    finished = manifests(run)
    kept = set(finished[-keep:])
    healthy = [path for path in finished if _healthy(path)]
    kept |= set(healthy[-1:])
    for manifest in finished:
        if manifest not in kept:
            manifest.unlink(missing_ok=True)
    for path in (run / FOLDER).glob("step-*.pt"):
        if path.with_suffix(".json") not in kept:
            path.unlink(missing_ok=True)


def _healthy(manifest: Path) -> bool:
    try:
        return read_manifest(manifest).healthy
    except ValueError:
        return False


def _step_of(path: Path) -> int:
    return int(path.stem.removeprefix("step-"))


def _check_room(path: Path, state: Mapping[str, Any]) -> None:
    needed = int(SLACK * sum(tensor.numel() * tensor.element_size() for tensor in _tensors(state)))
    free = shutil.disk_usage(path.parent).free
    if free < needed:
        raise OSError(
            errno.ENOSPC, f"no room: a checkpoint needs {needed:,} bytes, the disk has {free:,} free", str(path)
        )


def _tensors(state: Any) -> list[Tensor]:
    if isinstance(state, Tensor):
        return [state]
    if isinstance(state, Mapping):
        return [tensor for value in state.values() for tensor in _tensors(value)]
    if isinstance(state, list | tuple):
        return [tensor for value in state for tensor in _tensors(value)]
    return []
