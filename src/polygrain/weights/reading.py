"""Checkpoints of other projects, as flat maps from names to tensors; nothing in a file is ever executed."""

import argparse
import pickle
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor


def _filter_of_lars(*arguments: object) -> None:
    """Stands for the function that VICReg's optimizer saves a reference to; only ever held, never called."""
    raise AssertionError("a checkpoint tried to call a function")


# VICReg and VICRegL save their LARS optimizer, whose parameter groups name this function of theirs.
LARS_FILTERS = ["__main__.exclude_bias_and_norm", "optimizers.exclude_bias_and_norm"]


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """All tensors of a .pth or .safetensors file; names of nested maps are joined by "/".

    Raises:
        ValueError: when there is no such file, or it holds other things than tensors, numbers and text.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    if path.suffix == ".safetensors":
        return load_file(path)
    allowed: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [argparse.Namespace]
    allowed += [(_filter_of_lars, name) for name in LARS_FILTERS]
    try:
        with torch.serialization.safe_globals(allowed):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"{path} cannot be read as plain tensors, and is not opened otherwise: {reason}") from error
    tensors = dict(_flatten(content, ""))
    if not tensors:
        raise ValueError(f"{path} holds no tensors")
    return tensors


def _flatten(content: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(content, Tensor):
        yield name, content
    elif isinstance(content, Mapping):
        for key, value in content.items():
            yield from _flatten(value, f"{name}/{key}" if name else str(key))
    elif isinstance(content, list | tuple):
        for i, value in enumerate(content):
            yield from _flatten(value, f"{name}/{i}")
