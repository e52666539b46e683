"""What a source of images is, and how one with a million images stays small in every worker."""

import hashlib
import os
import sys
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from polygrain.data.decoding import Undecodable, decode
from polygrain.data.escaping import one_line
from polygrain.data.troubles import TROUBLES, trouble_of

REPLACEMENT_TRIES = 32
SAMPLED = 16  # images whose bytes tell one set from another


class Pixels(NamedTuple):
    """What reading one image gave."""

    image: Tensor  # (3, H, W) uint8
    source: int  # whose pixels these are: another than was asked for, where that one cannot be decoded


class Images(ABC):
    """A finite, ordered set of images, with a label each or without.

    An image that cannot be decoded is named once on stderr, remembered in `broken` (memory shared with the loader's
    workers), and replaced by the next one that can: never fatal, never silent, and the same one in every run.
    """

    channels: int = 3
    opened_as: str | None = None  # what a person named to have it opened
    classes: list[str] | None = None  # names of the classes, by label, where the source knows them
    only_folder: str | None = None  # that holds all images of a folder: one class tells nothing apart, so it is none

    def __init__(self, count: int) -> None:
        self.left_out = LeftOut()
        self._broken = torch.zeros(count, dtype=torch.uint8)  # (n,) 1 + position in TROUBLES, 0 while fine
        self._broken.share_memory_()  # type: ignore[no-untyped-call] # torch gives it no types

    def __len__(self) -> int:
        return len(self._broken)

    @abstractmethod
    def name(self, i: int) -> str:
        """What a person would call image i in this source."""

    @abstractmethod
    def load(self, i: int) -> Tensor:
        """Pixels of image i itself, uint8 (3, H, W).

        Raises:
            Undecodable: when there are none to be had.
        """

    def encoded(self, i: int) -> bytes | None:
        """The file of image i as it was stored; None in a source without files.

        Raises:
            Unreadable: when it cannot be had.
        """
        return None

    def decoded(self, data: bytes) -> Tensor:
        """Pixels of a file of this source, as `load` gives them.

        Raises:
            Undecodable: when there are none to be had.
        """
        return decode(data, self.channels)

    def fingerprint(self) -> str:
        """Short text that changes when images are added, removed, renamed or reordered."""
        digest = hashlib.blake2b(f"{type(self).__name__} {len(self)}".encode(), digest_size=16)
        for i in range(len(self)):
            digest.update(os.fsencode(self.name(i)) + b"\0")
        return digest.hexdigest()

    def content(self) -> str:
        """Short text that also changes with the pixels, and not with the place where the images lie: of all names, the
        sizes of files where they are known, and some images."""
        digest = hashlib.blake2b(self.fingerprint().encode(), digest_size=16)
        for i in np.unique(np.linspace(0, len(self) - 1, SAMPLED).round().astype(int)).tolist():
            try:
                data = self.encoded(i)
                digest.update(hashlib.blake2b(self.load(i).numpy().tobytes() if data is None else data).digest())
            except Undecodable:
                digest.update(b"broken")
        return digest.hexdigest()

    def state(self) -> str | None:
        """Short text that also changes when the content of a file does; None where nobody can know."""
        return None

    def labels(self) -> NDArray[np.int64] | None:
        """(n,) the class of every image, -1 where an image has none; None for a source without labels."""
        return None

    def label(self, i: int) -> int | None:
        labels = self.labels()
        return None if labels is None or labels[i] < 0 else int(labels[i])

    def decode(self, i: int) -> Tensor:
        """Pixels of image i or, if it cannot be decoded, of the next one that can: uint8 (3, H, W)."""
        return self.read(i).image

    def read(self, i: int) -> Pixels:
        """As `decode`, and says whose pixels they are (whose label goes with them).

        Raises:
            Undecodable: when 32 images in a row cannot be decoded.
        """
        if not 0 <= i < len(self):
            raise IndexError(f"image {i} of {len(self)}")
        tries = min(REPLACEMENT_TRIES, len(self))
        for j in range(i, i + tries):
            j %= len(self)
            if self._broken[j]:
                continue
            try:
                return Pixels(self.load(j), j)
            except Undecodable as error:
                self._broken[j] = 1 + TROUBLES.index(trouble_of(error))
                told = one_line(str(error))
                print(f"polygrain: cannot decode {self.name(j)!r}: {told}; using the next image", file=sys.stderr)
        last = self.name((i + tries - 1) % len(self))
        raise Undecodable(f"{tries} images in a row cannot be decoded, from {self.name(i)!r} to {last!r}")

    @property
    def broken(self) -> list[int]:
        """Images found undecodable so far, by this process and its workers."""
        found: list[int] = self._broken.nonzero().flatten().tolist()
        return found

    def troubles(self) -> dict[str, int]:
        """Number of images in `broken` by what is wrong with them."""
        counts = torch.bincount(self._broken, minlength=len(TROUBLES) + 1).tolist()[1:]
        return {trouble: count for trouble, count in zip(TROUBLES, counts, strict=True) if count}


class LeftOut:
    """What a source found and does not use: counts by reason, and the first few names of each."""

    EXAMPLES = 3

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = {}

    def add(self, reason: str, name: bytes | str) -> None:
        self.counts[reason] += 1
        if self.counts[reason] <= self.EXAMPLES:
            self.examples.setdefault(reason, []).append(os.fsdecode(name))

    def line(self) -> str:
        """All of it in one line."""
        parts = (
            f"{count:,} {reason} ({', '.join(map(repr, self.examples[reason]))}{', ...' * (count > self.EXAMPLES)})"
            for reason, count in self.counts.most_common()
        )
        return "; ".join(parts)


class Names:
    """A sequence of file names in one buffer.

    A list of a million `str` costs 100 MB in the parent and as much again in each forked worker, since reading an
    object writes its reference count; a buffer and offsets cost the bytes of the names and 8 each, and stay shared.
    """

    def __init__(self, chunks: Iterable[list[bytes]]) -> None:
        text = bytearray()
        lengths = [np.zeros(1, np.int64)]
        for chunk in chunks:
            text += b"".join(chunk)
            lengths.append(np.fromiter(map(len, chunk), np.int64, len(chunk)))
        self._text = bytes(text)
        self._ends = np.concatenate(lengths).cumsum()  # (n + 1,)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, i: int) -> bytes:
        return self._text[self._ends[i] : self._ends[i + 1]]

    def digest(self) -> bytes:
        """A hash of all the names and their order."""
        found = hashlib.blake2b(self._text, digest_size=16)
        found.update(np.ascontiguousarray(self._ends).tobytes())
        return found.digest()

    @property
    def nbytes(self) -> int:
        return len(self._text) + self._ends.nbytes
