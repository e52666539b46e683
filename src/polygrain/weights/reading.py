"""Checkpoints of other projects, as flat maps from names to tensors; nothing in a file is ever executed."""

import argparse
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from polygrain.weights.tensors import check_name, read_tensors, regular_file
from polygrain.weights.vetting import vet


def _filter_of_lars(*arguments: object) -> None:
    """Stands for the function that VICReg's optimizer saves a reference to; only ever held, never called."""
    raise AssertionError("a checkpoint tried to call a function")


# VICReg and VICRegL save their LARS optimizer, whose parameter groups name this function of theirs.
LARS_FILTERS = ("__main__.exclude_bias_and_norm", "optimizers.exclude_bias_and_norm")
DEEPEST = 32  # maps and lists within each other
MOST = 1_000_000  # entries of all maps and lists of a file; those that occur twice count twice


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """All tensors of a .pth or .safetensors file; names of nested maps are joined by "/".

    Raises:
        ValueError: when there is no such file, or it holds other things than tensors, numbers and text.
    """
    path = regular_file(path)
    if path.suffix == ".safetensors":
        return read_tensors(path).tensors
    tensors: dict[str, Tensor] = {}
    for name, tensor in _flatten(read_torch(path), path):
        if name in tensors:
            raise ValueError(f"{path} holds two tensors named {name}, so that one would be lost")
        tensors[check_name(name, path)] = _sound(tensor, name, path)
    if not tensors:
        raise ValueError(f"{path} holds no tensors")
    return tensors


def read_torch(path: Path, *, mapped: bool = True) -> Any:
    """What `torch.save` wrote, of plain values, tensors, Namespaces and the stand-ins for LARS alone.

    Args:
        mapped: tensors stay in the file until they are used; otherwise they no longer need it.
    """
    vet(path, frozenset(LARS_FILTERS))
    allowed: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [argparse.Namespace]
    allowed += [(_filter_of_lars, name) for name in LARS_FILTERS]
    try:
        with torch.serialization.safe_globals(allowed):
            # mapped storages cannot grow to what a tensor claims; the older kind of file cannot be mapped
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped and zipfile.is_zipfile(path))
    except OSError:
        raise
    except Exception as error:  # a file from elsewhere can break the reader in any way
        reason = " ".join(str(error).split("\n")[0].split()) or type(error).__name__
        raise ValueError(f"{path} cannot be read as plain tensors, and is not opened otherwise: {reason}") from error


def _flatten(content: Any, path: Path) -> Iterator[tuple[str, Tensor]]:
    """Every tensor with its name, in the order of the file."""
    seen = 0
    waiting: list[tuple[str, Any, int]] = [("", content, 0)]
    while waiting:
        name, value, depth = waiting.pop()
        seen += 1
        if seen > MOST or depth > DEEPEST:
            raise ValueError(f"{path} refused: more than {MOST:,} entries, or more than {DEEPEST} within each other")
        if isinstance(value, Tensor):
            yield name, value
            continue
        entries: list[tuple[Any, Any]] = []
        if isinstance(value, dict):
            entries = list(dict.items(value))  # not `value.items()`: a file can give an OrderedDict other attributes
        elif isinstance(value, list | tuple):
            entries = list(enumerate(value))
        before = f"{name}/" if name else ""
        waiting += [(f"{before}{_key(key, path)}", inner, depth + 1) for key, inner in reversed(entries)]


def _key(key: object, path: Path) -> str:
    if not isinstance(key, str | int | float):
        raise ValueError(f"{path} names an entry by a {type(key).__name__}; names are text or numbers")
    return str(key)


def _sound(tensor: Tensor, name: str, path: Path) -> Tensor:
    """A tensor that takes no more memory than the file gave it.

    Raises:
        ValueError: when it repeats its numbers by strides, and a copy would be larger than the file.
    """
    tensor = tensor.detach()
    size, held = tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes()
    if size > held:
        raise ValueError(
            f"{path} refused: {name} claims {size:,} bytes {tuple(tensor.shape)}, the file has {held:,} for it"
        )
    return tensor
