"""Patch vectors of a whole set as a few bytes each, so that a page can search them."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

BYTES = 4_500_000  # of all codes in a page
MOST, LEAST = 64, 16  # numbers that a region is kept as
REST = 255  # steps of the length of what they leave out, which is at most 1
QUERIES, COMPARED = 64, 10  # patches, and regions nearest to each, by which codes are judged


class Basis(NamedTuple):
    """How unit vectors become codes: the nearest codes are, nearly, the vectors of the largest cosine.

    The distance of unit vectors tells their cosine, 1 - d^2 / 2. Principal directions keep most of it; of what they
    leave out the length alone is kept, and two such parts are taken to be at right angles.
    """

    mean: Tensor  # (D,)
    directions: Tensor  # (d, D) orthonormal
    step: float  # what one unit of a code is worth

    def codes(self, patches: Tensor) -> Tensor:
        """(..., D) to (..., d) int8."""
        shares = (F.normalize(patches.float(), dim=-1) - self.mean) @ self.directions.T / self.step
        return shares.round().clamp(-127, 127).to(torch.int8)

    def rest(self, patches: Tensor) -> Tensor:
        """(..., D) to (...) uint8: the length of what the directions leave out."""
        around = F.normalize(patches.float(), dim=-1) - self.mean
        dropped = around.square().sum(-1) - (around @ self.directions.T).square().sum(-1)
        return (dropped.clamp(0, 1).sqrt() * REST).round().to(torch.uint8)


class Plan(NamedTuple):
    """What is kept of each image."""

    pooled: int  # cells are averaged in squares of this side, so that all fit
    dims: int


def plan(images: int, grid: tuple[int, int], width: int, budget: int = BYTES) -> Plan:
    """As fine a grid as leaves room for 16 numbers and a length, and as many numbers, up to 64, as there is room for.

    Args:
        width: D of the vectors.
        budget: bytes for this model.
    """
    pooled = 1
    while True:
        cells = images * -(-grid[0] // pooled) * -(-grid[1] // pooled)
        if cells * (LEAST + 1) <= budget or max(grid) <= pooled:
            return Plan(pooled, max(1, min(MOST, width, max(LEAST, budget // cells - 1))))
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


class Agreement:
    """How many of the regions nearest to some patches codes find, too: counted batch by batch over all images.

    As in the page, one region of each other image counts.

    Args:
        cells: (n, R, D) of the first images, of which evenly spaced ones are the queries.
    """

    def __init__(self, basis: Basis, cells: Tensor, codes: Tensor, queries: int = QUERIES, k: int = COMPARED) -> None:
        count = cells.shape[0] * cells.shape[1]
        rows = torch.arange(0, count, -(-count // queries))
        self.step, self.k, self.images, self.own = basis.step, k, 0, rows // cells.shape[1]
        self.queries, self.codes = cells.flatten(0, 1)[rows], codes.flatten(0, 1)[rows].float()
        empty = torch.zeros(len(rows), 0)
        self.exact, self.found = ((empty, empty.long()) for _ in range(2))  # scores, largest first, and regions

    def add(self, cells: Tensor, codes: Tensor, rest: Tensor) -> None:
        """The next images: (n, R, D), (n, R, d) and (n, R)."""
        unit, queries = F.normalize(cells.flatten(0, 1), dim=-1), F.normalize(self.queries, dim=-1)
        away = torch.cdist(self.codes, codes.flatten(0, 1).float()) * self.step
        dropped = rest.flatten().float() / REST
        self.exact = self._merged(self.exact, queries @ unit.T, len(cells))
        self.found = self._merged(self.found, -(away.square() + dropped.square()), len(cells))
        self.images += len(cells)

    def _merged(self, best: tuple[Tensor, Tensor], scores: Tensor, images: int) -> tuple[Tensor, Tensor]:
        new, where = scores.view(len(scores), images, -1).max(2)  # (Q, n)
        number = self.images + torch.arange(images)
        new = new.masked_fill(number == self.own[:, None], -torch.inf)
        regions = number * (scores.shape[1] // images) + where
        every, of = torch.cat([best[0], new], 1), torch.cat([best[1], regions], 1)
        values, places = every.topk(min(self.k, every.shape[1]), dim=1)
        return values, of.gather(1, places)

    def share(self) -> float:
        both = (self.exact[1][:, :, None] == self.found[1][:, None]).any(2)
        return float(both[self.exact[0] > -torch.inf].double().mean())
