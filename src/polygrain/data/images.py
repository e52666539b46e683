"""What a source of images is, and how one with a million images stays small in every worker."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from polygrain.data.decoding import Undecodable

REPLACEMENT_TRIES = 32


class Pixels(NamedTuple):
    """What reading one image gave."""

    image: Tensor  # (3, H, W) uint8
    source: int  # whose pixels these are: another than was asked for, where that one cannot be decoded


class Images(ABC):
    """A finite, ordered set of images, with a label each or without.

    An image that cannot be decoded is named once on stderr, remembered in `broken` (memory shared with the loader's
    workers), and replaced by the next one that can: never fatal, never silent, and the same one in every run.
    """

    classes: list[str] | None = None  # names of the classes, by label, where the source knows them

    def __init__(self, count: int) -> None:
        self._broken = torch.zeros(count, dtype=torch.uint8)  # (n,)
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
                self._broken[j] = 1
                print(f"polygrain: cannot decode {self.name(j)!r}: {error}; using the next image", file=sys.stderr)
        last = self.name((i + tries - 1) % len(self))
        raise Undecodable(f"{tries} images in a row cannot be decoded, from {self.name(i)!r} to {last!r}")

    @property
    def broken(self) -> list[int]:
        """Images found undecodable so far, by this process and its workers."""
        found: list[int] = self._broken.nonzero().flatten().tolist()
        return found


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

    @property
    def nbytes(self) -> int:
        return len(self._text) + self._ends.nbytes
