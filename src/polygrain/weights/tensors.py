"""Files of named tensors (safetensors), written durably, read with suspicion; digests and checks of tensors."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from polygrain.weights.durable import write_durably


class TensorFile(NamedTuple):
    """What a safetensors file holds."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Writes a safetensors file durably, with its folder; needs memory for one more copy of the tensors."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = save({key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}, dict(metadata))

    def put(file: Any) -> None:
        file.write(content)

    write_durably(path, put)


def read_tensors(path: str | Path) -> TensorFile:
    """All tensors and the metadata of a safetensors file.

    Raises:
        ValueError: when it is no such file.
    """
    with opened(path) as file:
        return TensorFile({key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {})  # noqa: SIM118


@contextmanager
def opened(path: str | Path) -> Iterator[Any]:
    """A safetensors file of which nothing but the header has been read.

    Raises:
        ValueError: when its header is not sound, or the body asks for tensors that cannot be read.
    """
    path = regular_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  # not a mapping
                check_name(name, path)
            yield file
    except SafetensorError as error:
        with path.open("rb") as raw:
            head = raw.read(4)
        what = "a pickle or an archive by another name, and is not opened" if head[:2] in PICKLES else f"{error}"
        raise ValueError(f"{path} is not a sound safetensors file: {' '.join(what.split())[:200]}") from error


PICKLES = (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def regular_file(path: str | Path) -> Path:
    """The path, when it is a file that can be read.

    Raises:
        ValueError: when it is a folder, a device, or nothing at all.
        PermissionError: when this user may not read it.
    """
    path = Path(path)
    if path.is_dir():
        refuse_distributed(path)
        raise ValueError(f"{path} is a folder, not a file of weights")
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    os.close(os.open(path, os.O_RDONLY))  # names the file when it may not be read; safetensors would not
    return path


def refuse_distributed(folder: Path) -> None:
    """Says what a folder of torch.distributed.checkpoint is.

    Raises:
        ValueError: when the folder is one.
    """
    if (folder / ".metadata").exists():
        raise ValueError(
            f"{folder} refused: a distributed checkpoint of torch is opened as a pickle and can run code; bring it to "
            f"one file where you trust it (python -m torch.distributed.checkpoint.format_utils dcp_to_torch)"
        )


def check_name(name: str, path: Path) -> str:
    """The name of a tensor, which may be printed.

    Raises:
        ValueError: when it is longer than 500 characters or could steer a terminal.
    """
    if len(name) > 500 or not name.isprintable():
        raise ValueError(
            f"{path} refused: it names a tensor {name[:40]!r} ...; names are up to 500 printable characters"
        )
    return name


def check_finite(tensors: Mapping[str, Tensor], source: str) -> None:
    """Whether all numbers are numbers.

    Raises:
        ValueError: when one is NaN or infinite; names the first tensor.
    """
    bad = {
        name: int((~tensor.isfinite()).sum())
        for name, tensor in tensors.items()
        if tensor.is_floating_point() and not _finite(tensor)
    }
    if bad:
        first = next(iter(bad))
        raise ValueError(
            f"{source} holds NaN or infinite weights: {bad[first]:,} of {tensors[first].numel():,} in {first}, "
            f"{sum(bad.values()):,} in {len(bad)} tensors; it cannot be used, take an earlier checkpoint"
        )


def _finite(tensor: Tensor) -> bool:
    """Whether the sum is finite, which is quick to know; an overflowing sum is looked at again."""
    return bool(tensor.double().sum().isfinite()) or bool(tensor.isfinite().all())


def sha256(tensors: Mapping[str, Tensor], text: str) -> str:
    """One digest of a text and of all tensors: names, types, shapes and every bit."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
