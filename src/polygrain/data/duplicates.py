"""Images that are there more than once, exactly or nearly, among millions."""

from collections.abc import Iterator
from typing import cast

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Places = NDArray[np.int64]

NEAR_BITS = 4  # of 64, by which the first perceptual hashes of near duplicates may differ
OTHER_BITS = 6  # of the 64 of the second hash
BANDS = NEAR_BITS + 1  # where at most 4 bits differ, one of five bands is equal
FEW = 512  # hashes that are compared each with each


def first_equal(hashes: Hashes) -> Places:
    """(n,) position of the first image with the same hash: its own where there is none before."""
    _, first, back = np.unique(hashes, return_index=True, return_inverse=True)
    return first[back.reshape(-1)].astype(np.int64)


def first_near(hashes: Hashes, others: Hashes) -> Places:
    """(n,) position of the first image that is near, its own where there is none.

    Near are two images whose first 64-bit hashes differ by 4 bits or fewer, and whose second by 6 or fewer. Candidates
    agree in one of five bands of the first; a band that many agree in is split again by bands of the other
    bits, so the time stays near n log n.
    """
    both, first, back = np.unique(np.stack([hashes, others], 1), axis=0, return_index=True, return_inverse=True)
    one, two = np.ascontiguousarray(both.T)
    nearest = first.astype(np.int64)
    for left, right in _pairs(one, np.arange(len(one)), np.arange(64)):
        near = _differ_little(one[left], one[right], NEAR_BITS)
        left, right = left[near], right[near]
        near = _differ_little(two[left], two[right], OTHER_BITS)
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


def _differ_little(one: Hashes, other: Hashes, most: int) -> NDArray[np.bool_]:
    difference = one ^ other
    for _ in range(most):
        difference &= difference - np.uint64(1)  # takes the lowest bit away that is set
    return cast(NDArray[np.bool_], difference == 0)
