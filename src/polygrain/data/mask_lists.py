"""Which images with masks are for training and which for validation, by lists of names."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from polygrain.data.masks import Entry, Found, MaskedImages, index, open_masked, read_json

Source = str | os.PathLike[str] | MaskedImages


def open_train_and_val(
    data: Source, val: Source | None, split: str | None, channels: int = 3
) -> tuple[MaskedImages, MaskedImages]:
    """Opens both sets: all of `data` and all of `val`, or what the lists of `split` name.

    Args:
        split: "train.txt,val.txt" (a name a line), or "splits.json" or "splits.json:NAME" with
            {"train": [...], "val": [...]}, the second below NAME. A name is that of the image below images/, without
            suffix; "folder/" means all in that folder; "train.tar:NAME" is an image of an archive in the folder `data`.
            Names of the second list are looked up in `val`, where that is given.

    Raises:
        ValueError: when neither `val` nor `split` is given, or a name means no image.
    """
    if split is None:
        if val is None:
            raise ValueError("give --val, or --split with the names to train on and to validate on")
        return open_masked(data, channels), open_masked(val, channels)
    train_names, val_names = read_split(split)
    return _named(train_names, data, split, channels), _named(val_names, val or data, split, channels)


def read_split(split: str) -> tuple[list[str], list[str]]:
    """Names to train on and to validate on.

    Raises:
        ValueError: when a file is missing or holds no such lists.
    """
    if ".json" not in split:
        files = split.split(",")
        if len(files) != 2:
            raise ValueError(f"split is {split!r}; wanted two lists as train.txt,val.txt, or splits.json:NAME")
        train, val = ([line.strip() for line in _text(_list(file)).splitlines() if line.strip()] for file in files)
        return train, val
    before, _, name = split.rpartition(".json")
    told = read_json(_list(before + ".json"))
    if name := name.removeprefix(":"):
        if not isinstance(told, dict) or name not in told:
            there = ", ".join(map(repr, told)) if isinstance(told, dict) else "no splits by name"
            raise ValueError(f"no split {name!r} in {before + '.json'!r}; it has {there}")
        told = told[name]
    lists: list[Any] = [told.get(kind) for kind in ("train", "val")] if isinstance(told, dict) else [None]
    if not all(isinstance(names, list) and all(isinstance(entry, str) for entry in names) for names in lists):
        named = [key for key, value in told.items() if isinstance(value, dict)] if isinstance(told, dict) else []
        hint = f"; add the name of one, as in {before}.json:{named[0]}" if named else ""
        raise ValueError(f'{split!r} has no lists {{"train": [...], "val": [...]}}{hint}')
    return lists[0], lists[1]


def _list(file: str) -> Path:
    if not Path(file).is_file():
        raise ValueError(f"no list {file!r}")
    return Path(file)


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except UnicodeDecodeError as error:
        raise ValueError(f"{str(file)!r} is no list of names: {error}") from error


def _named(names: Sequence[str], data: Source, split: str, channels: int) -> MaskedImages:
    if isinstance(data, MaskedImages):
        raise ValueError("a split goes with a folder or archives; a set that is open already is split by take()")
    root = Path(data)
    indices: dict[str, Found] = {}  # by part, "" for data itself
    chosen: dict[tuple[str, str], Entry] = {}  # a name twice is one image
    lone: dict[str, None] = {}
    for entry in names:
        part, _, name = entry.rpartition(":")
        if part not in indices:
            inside = root / part if root.is_dir() and part else root
            if part and not root.is_dir() and root.name != part:
                raise ValueError(f"{entry!r} of {split!r} is in {part!r}, but --data is {root.name!r}; give its folder")
            indices[part] = index(str(inside), channels)
        there = indices[part].entries
        if name in there:
            chosen[part, name] = there[name]
        elif name.endswith("/") and (inner := [other for other in there if other.startswith(name)]):
            chosen |= {(part, other): there[other] for other in inner}
            lone |= {mask: None for other, mask in indices[part].lone.items() if other.startswith(name)}
        else:
            some = next(iter(there))
            raise ValueError(f"{entry!r} of {split!r} is not in {str(root)!r}, which has images such as {some!r}")
    if not chosen:
        raise ValueError(f"a list of {split!r} is empty")
    classes = next(iter(indices.values())).classes
    return MaskedImages(list(chosen.values()), classes, os.fspath(data), lone)
