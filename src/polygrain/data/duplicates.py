"""Images that are there more than once, exactly or nearly, among millions."""

from collections.abc import Iterator
from typing import cast

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Places = NDArray[np.int64]

NEAR_BITS = 3  # of 64, by which the perceptual hashes of near duplicates may differ
BANDS = NEAR_BITS + 1  # where at most 3 bits differ, one of four bands is equal
FEW = 512  # hashes that are compared each with each


def first_equal(hashes: Hashes) -> Places:
    """(n,) position of the first image with the same hash: its own where there is none before."""
    _, first, back = np.unique(hashes, return_index=True, return_inverse=True)
    return first[back.reshape(-1)].astype(np.int64)


def first_near(hashes: Hashes) -> Places:
    """(n,) position of the first image whose 64-bit hash differs by 3 bits or fewer: its own where there is none.

    Equal hashes are joined, then hashes that agree in one of four bands of 16 bits are compared; a band that many agree
    in is split again, by bands of the other bits, so the time stays near n log n.
    """
    distinct, first, back = np.unique(hashes, return_index=True, return_inverse=True)
    nearest = first.astype(np.int64)
    for left, right in _pairs(distinct, np.arange(len(distinct)), np.arange(64)):
        near = _differ_little(distinct[left], distinct[right])
        left, right = left[near], right[near]
        np.minimum.at(nearest, left, first[right])
        np.minimum.at(nearest, right, first[left])
    return nearest[back.reshape(-1)]


def _pairs(hashes: Hashes, members: Places, free: Places) -> Iterator[tuple[Places, Places]]:
    """Pairs of `members` that agree in a band of the `free` bits: among them all that differ by few bits."""
    for band in np.array_split(free, BANDS):
        keys = hashes[members] & np.uint64(sum(1 << int(bit) for bit in band))
        order = np.argsort(keys, kind="stable")
        keys, sorted_members = keys[order], members[order]
        starts = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))
        lengths = np.diff(np.append(starts, len(keys)))
        rest = np.setdiff1d(free, band)
        many = (lengths > FEW) & (len(rest) >= BANDS)
        for start, length in zip(starts[many], lengths[many], strict=True):
            yield from _pairs(hashes, sorted_members[start : start + length], rest)
        ends = np.repeat(np.where(many, 0, starts + lengths), lengths)
        at = np.arange(len(keys))
        for offset in range(1, int(lengths[~many].max(initial=0))):
            at = at[at + offset < ends[at]]
            yield sorted_members[at], sorted_members[at + offset]


def _differ_little(one: Hashes, other: Hashes) -> NDArray[np.bool_]:
    difference = one ^ other
    for _ in range(NEAR_BITS):
        difference &= difference - np.uint64(1)  # takes the lowest bit away that is set
    return cast(NDArray[np.bool_], difference == 0)
