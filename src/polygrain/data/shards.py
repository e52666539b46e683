"""Images of tar shards in the layout of WebDataset, with random access.

A sample is what shares a key, the name up to the first dot of its last part: `000123.jpg` is the image and `000123.cls`
its label, a number as text. Other members are left alone.
"""

import glob
import hashlib
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

from polygrain.data.folders import suffixes
from polygrain.data.images import Images, LeftOut, Names
from polygrain.data.reading import LARGEST_FILE, patiently
from polygrain.data.tar import members
from polygrain.data.troubles import Unreadable

OPEN_FILES = 64  # per process
DOTTED = "members with several dots"


class ShardImages(Images):
    """Every image of the shards, in the order of the archives.

    The headers are read once; after that an image is one `pread`, which forked workers can share a file for.

    Raises:
        ValueError: when a shard is broken or cut short, a label is no number, or there is no image.
    """

    def __init__(self, shards: Sequence[Path], channels: int = 3) -> None:
        self.channels = channels
        wanted = suffixes(channels)
        self.shards = [str(shard) for shard in shards]
        self._places: NDArray[np.int64]  # (n, 2) offset and size in the shard
        self._labels: NDArray[np.int32]  # (n,)
        places: list[NDArray[np.int64]] = []
        labels: list[NDArray[np.int32]] = []
        left_out = LeftOut()
        self._states = [_state(os.stat(shard)) for shard in shards]  # noqa: PTH116 as `_file` asks for it
        self._names = Names(_chunks(shards, wanted, places, labels, left_out))
        self._starts = np.cumsum([0] + [len(part) for part in places])  # (shards + 1,) number of the first image
        if not len(self._names):
            raise ValueError(
                f"no image in {len(shards)} shards, {self.shards[0]!r} first (looked for members such as 000123.jpg, "
                f"with one dot in the last part of the name, ending in {', '.join(wanted)})"
            )
        super().__init__(len(self._names))
        self.left_out = left_out
        if DOTTED in left_out.counts:
            print(
                f"polygrain: left out {left_out.counts[DOTTED]} {DOTTED}, such as "
                f"{left_out.examples[DOTTED][0]!r}: in a WebDataset shard the image of a sample has one dot",
                file=sys.stderr,
            )
        self._places, self._labels = np.concatenate(places), np.concatenate(labels)
        self._labelled = bool((self._labels >= 0).any())
        self._files: OrderedDict[int, BinaryIO] = OrderedDict()  # lately used last

    def name(self, i: int) -> str:
        return f"{self.shards[self._shard(i)]}:{os.fsdecode(self._names[i])}"

    def load(self, i: int) -> Tensor:
        return self.decoded(self.encoded(i))

    def encoded(self, i: int) -> bytes:
        offset, size = self._places[i].tolist()
        if size > LARGEST_FILE:
            raise Unreadable(f"the member has {size:,} bytes, more than any image within the limits")
        shard = self._shard(i)
        data = patiently(lambda: os.pread(self._file(shard).fileno(), size, offset))
        if len(data) < size:
            raise Unreadable("the shard has become shorter since it was listed")
        return data

    def fingerprint(self) -> str:
        """Of the members' names, places and labels: the shards may lie elsewhere."""
        digest = hashlib.blake2b(b"shards" + self._names.digest(), digest_size=16)
        for part in (self._starts, self._places, self._labels):
            digest.update(np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()

    def state(self) -> str:
        return hashlib.blake2b(f"{self.fingerprint()} {self._states}".encode(), digest_size=16).hexdigest()

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
            file = Path(self.shards[shard]).open("rb")  # noqa: SIM115 stays open for the next image
            if _state(os.fstat(file.fileno())) != self._states[shard]:
                file.close()
                raise Unreadable("the shard has changed since it was listed")
            self._files[shard] = file
        self._files.move_to_end(shard)
        return self._files[shard]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": OrderedDict()}  # open files do not travel to other processes


def _state(state: os.stat_result) -> tuple[int, int]:
    """By what a shard that was written anew since it was listed is told: its places hold no longer."""
    return state.st_size, state.st_mtime_ns


def _chunks(
    shards: Sequence[Path],
    wanted: tuple[str, ...],
    places: list[NDArray[np.int64]],
    labels: list[NDArray[np.int32]],
    left_out: LeftOut,
) -> Iterator[list[bytes]]:
    """Names of the images of one shard after another; appends where they lie and their labels."""
    fields = tuple(suffix.removeprefix(".").encode() for suffix in wanted)
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
                left_out.add("hidden members", member.name)
            elif field in fields:
                names.append(member.name)
                keys.append(key)
                where += (member.offset, member.size)
            elif field == b"cls":
                label_of[key] = _label(start, shard, member.name)
            elif field.endswith(tuple(b"." + name for name in fields)):
                left_out.add(DOTTED, member.name)
        places.append(np.array(where, np.int64).reshape(-1, 2))
        labels.append(np.fromiter((label_of.get(key, -1) for key in keys), np.int32, len(keys)))
        yield names


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
