"""Images of tar shards in the layout of WebDataset, with random access.

A sample is what shares a key, the name up to the first dot of its last part: `000123.jpg` is the image and `000123.cls`
its label, a number as text. Other members are left alone.
"""

import glob
import os
import re
import sys
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from polygrain.data.decoding import Undecodable, decode
from polygrain.data.folders import SUFFIXES
from polygrain.data.images import Images, Names
from polygrain.data.tar import members

OPEN_FILES = 64  # per process
FIELDS = tuple(suffix.removeprefix(".").encode() for suffix in SUFFIXES)


class ShardImages(Images):
    """Every image of the shards, in the order of the archives.

    The headers are read once; after that an image is one `pread`, which forked workers can share a file for.

    Raises:
        ValueError: when a shard is broken or cut short, a label is no number, or there is no image.
    """

    def __init__(self, shards: Sequence[Path]) -> None:
        self.shards = [str(shard) for shard in shards]
        self._places: NDArray[np.int64]  # (n, 2) offset and size in the shard
        self._labels: NDArray[np.int32]  # (n,)
        places: list[NDArray[np.int64]] = []
        labels: list[NDArray[np.int32]] = []
        self._names = Names(_chunks(shards, places, labels))
        self._starts = np.cumsum([0] + [len(part) for part in places])  # (shards + 1,) number of the first image
        if not len(self._names):
            raise ValueError(
                f"no image in {len(shards)} shards, {self.shards[0]!r} first (looked for members such as 000123.jpg, "
                f"with one dot in the last part of the name, ending in {', '.join(SUFFIXES)})"
            )
        super().__init__(len(self._names))
        self._places, self._labels = np.concatenate(places), np.concatenate(labels)
        self._labelled = bool((self._labels >= 0).any())
        self._files: OrderedDict[int, BinaryIO] = OrderedDict()  # lately used last

    def name(self, i: int) -> str:
        return f"{self.shards[self._shard(i)]}:{os.fsdecode(self._names[i])}"

    def load(self, i: int) -> Tensor:
        offset, size = self._places[i].tolist()
        data = os.pread(self._file(self._shard(i)).fileno(), size, offset)
        if len(data) < size:
            raise Undecodable("the shard has become shorter since it was listed")
        return decode(data)

    def labels(self) -> NDArray[np.int64] | None:
        return self._labels.astype(np.int64) if self._labelled else None

    def label(self, i: int) -> int | None:
        return int(self._labels[i].item()) if self._labels[i] >= 0 else None

    @property
    def nbytes(self) -> int:
        """Bytes of the index, which every worker sees."""
        return self._names.nbytes + self._places.nbytes + self._labels.nbytes + self._broken.nbytes

    def _shard(self, i: int) -> int:
        return int(np.searchsorted(self._starts, i, side="right")) - 1

    def _file(self, shard: int) -> BinaryIO:
        if shard not in self._files:
            if len(self._files) >= OPEN_FILES:
                self._files.popitem(last=False)[1].close()
            self._files[shard] = Path(self.shards[shard]).open("rb")  # noqa: SIM115 stays open for the next image
        self._files.move_to_end(shard)
        return self._files[shard]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": OrderedDict()}  # open files do not travel to other processes


def _chunks(
    shards: Sequence[Path], places: list[NDArray[np.int64]], labels: list[NDArray[np.int32]]
) -> Iterator[list[bytes]]:
    """Names of the images of one shard after another; appends where they lie and their labels."""
    dotted = 0
    for shard in shards:
        names: list[bytes] = []
        keys: list[bytes] = []
        where: list[int] = []
        label_of: dict[bytes, int] = {}
        for member, start in members(shard):
            folder, slash, last = member.name.rpartition(b"/")
            stem, _, field = last.lower().partition(b".")
            key = folder + slash + last[: len(stem)]
            if not stem:
                continue  # hidden
            if field in FIELDS:
                names.append(member.name)
                keys.append(key)
                where += (member.offset, member.size)
            elif field == b"cls":
                label_of[key] = _label(start, shard, member.name)
            elif field.endswith(tuple(b"." + name for name in FIELDS)):
                dotted += 1
        places.append(np.array(where, np.int64).reshape(-1, 2))
        labels.append(np.fromiter((label_of.get(key, -1) for key in keys), np.int32, len(keys)))
        yield names
    if dotted:
        print(
            f"polygrain: left out {dotted} members with several dots, such as 000123.mask.png: "
            "in a WebDataset shard the image of a sample has one",
            file=sys.stderr,
        )


def _label(content: bytes, shard: Path, name: bytes) -> int:
    text = content.strip()
    if not re.fullmatch(rb"\d{1,9}", text):
        raise ValueError(f"label {text[:32]!r} of {os.fsdecode(name)!r} in {str(shard)!r} is not a number from 0")
    return int(text)


def expand(pattern: str) -> list[Path]:
    """Files that a name, a glob or a brace list means: "a.tar", "a-*.tar", "a-{000..007}.tar", "{train,val}-*.tar".

    Raises:
        ValueError: when a part of it means no file.
    """
    paths: list[Path] = []
    for part in _braces(pattern):
        found = sorted(glob.glob(part)) if glob.has_magic(part) else [part] if Path(part).exists() else []  # noqa: PTH207
        if not found:
            raise ValueError(f"no shard {part!r}" + (f", asked for by {pattern!r}" if part != pattern else ""))
        paths += map(Path, found)
    return list(dict.fromkeys(paths))  # patterns may overlap


def _braces(pattern: str) -> list[str]:
    """Innermost braces first: a list "{a,b}" or a range "{000..127}", zeros in front kept."""
    match = re.search(r"\{([^{}]*)\}", pattern)
    if match is None:
        return [pattern]
    inner = match[1]
    bounds = re.fullmatch(r"(\d+)\.\.(\d+)", inner)
    if bounds is not None:
        low, high = bounds.groups()
        values = [str(number).zfill(len(low)) for number in range(int(low), int(high) + 1)]
        if not values:
            raise ValueError(f"the range {match[0]!r} in {pattern!r} is empty; write the smaller number first")
    else:
        values = inner.split(",")
    return [name for value in values for name in _braces(pattern[: match.start()] + value + pattern[match.end() :])]
