"""Patch vectors of a whole set as a few bytes each, so that a page can search them."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

BYTES = 4_500_000  # of all codes in a page
MOST, LEAST = 64, 16  # numbers that a region is kept as


class Basis(NamedTuple):
    """How unit vectors become codes: the nearest codes are, nearly, the vectors of the largest cosine.

    The distance of unit vectors tells their cosine, 1 - d^2 / 2, and principal directions keep most of it.
    """

    mean: Tensor  # (D,)
    directions: Tensor  # (d, D) orthonormal
    step: float  # what one unit of a code is worth

    def codes(self, patches: Tensor) -> Tensor:
        """(..., D) to (..., d) int8."""
        shares = (F.normalize(patches.float(), dim=-1) - self.mean) @ self.directions.T / self.step
        return shares.round().clamp(-127, 127).to(torch.int8)


class Plan(NamedTuple):
    """What is kept of each image."""

    pooled: int  # cells are averaged in squares of this side, so that all fit
    dims: int


def plan(images: int, grid: tuple[int, int], width: int, budget: int = BYTES) -> Plan:
    """As fine a grid as leaves room for 16 numbers a cell, and as many of these, up to 64, as there is room for.

    Args:
        width: D of the vectors.
        budget: bytes for this model.
    """
    pooled = 1
    while True:
        cells = images * -(-grid[0] // pooled) * -(-grid[1] // pooled)
        if cells * LEAST <= budget or max(grid) <= pooled:
            return Plan(pooled, max(1, min(MOST, width, max(LEAST, budget // cells))))
        pooled += 1


def cells(patches: Tensor, grid: tuple[int, int], pooled: int) -> Tensor:
    """Patches (n, N, D) averaged in squares, at the borders in what there is of one: (n, rows, columns, D)."""
    maps = F.normalize(patches.float(), dim=-1).reshape(len(patches), *grid, -1).movedim(-1, 1)
    return F.avg_pool2d(maps, pooled, ceil_mode=True, count_include_pad=False).movedim(1, -1)


def fit(vectors: Tensor, dims: int) -> Basis:
    """The principal directions of vectors (M, D), and a step by which one in ten thousand numbers is cut off."""
    unit = F.normalize(vectors.float(), dim=-1)
    mean = unit.mean(0)
    centred = (unit - mean).double()
    _, directions = torch.linalg.eigh(centred.T @ centred)  # rising eigenvalues, in columns
    directions = directions[:, -dims:].flip(1).T.float()
    largest = ((unit - mean) @ directions.T).abs().amax(1)
    reach = torch.quantile(largest[:: -(-len(largest) // 100_000)], 0.999).item()
    return Basis(mean, directions, max(reach, 1e-6) / 127)


def agreement(vectors: Tensor, codes: Tensor, queries: int = 64, k: int = 10) -> float:
    """Share of the k rows of largest cosine that the codes find, too, over evenly spaced queries.

    Args:
        vectors: (M, D); `codes`: (M, d) int8 of the same rows.
    """
    rows = torch.arange(0, len(vectors), -(-len(vectors) // queries))
    k = min(k, len(vectors) - 1)
    unit, small = F.normalize(vectors.float(), dim=-1), codes.float()
    exact = (unit[rows] @ unit.T).topk(k + 1).indices
    found = torch.cdist(small[rows], small).topk(k + 1, largest=False).indices
    both = (exact[:, :, None] == found[:, None]).any(2) & (exact != rows[:, None])
    return float(both.sum() / (len(rows) * k))
