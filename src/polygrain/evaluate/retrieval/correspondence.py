"""Which patch of one picture shows what a patch of another shows."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

RADII = (0, 1, 2)  # cells


class Places(NamedTuple):
    """Where points of the source image lie in the grid of a crop."""

    rows: Tensor  # (B, N) long
    columns: Tensor  # (B, N) long
    inside: Tensor  # (B, N) bool, whether the crop shows the point


class Matches(NamedTuple):
    """For each patch of A the most similar one of B."""

    nearest: Tensor  # (B, N) long, row-major in B
    mutual: Tensor  # (B, N) bool, whether the one of B finds the same patch of A


def places(points: Tensor, box: Tensor, flipped: Tensor, grid: tuple[int, int]) -> Places:
    """The cells of crops in which points lie; in a flipped crop columns run from right to left.

    Args:
        points: (B, N, 2) y, x in source-image pixels.
        box: (B, 4) top, left, height, width; flipped: (B,) bool.
    """
    share = (points - box[:, None, :2]) / box[:, None, 2:]  # (B, N, 2) of height and width
    inside = ((share >= 0) & (share < 1)).all(dim=2)
    across = torch.where(flipped[:, None], 1 - share[..., 1], share[..., 1])
    rows, columns = (
        (part * count).floor().long().clamp(0, count - 1)
        for part, count in zip((share[..., 0], across), grid, strict=True)
    )
    return Places(rows, columns, inside)


def match(first: Tensor, second: Tensor) -> Matches:
    """By cosine, patches (B, N, D) of A with those (B, M, D) of B; the first of equals."""
    cosine = F.normalize(first, dim=2) @ F.normalize(second, dim=2).transpose(1, 2)  # (B, N, M)
    nearest = cosine.argmax(dim=2)
    back = cosine.argmax(dim=1).gather(1, nearest)  # (B, N)
    return Matches(nearest, back == torch.arange(first.shape[1], device=first.device))


def hits(nearest: Tensor, true: Places, grid: tuple[int, int], radius: int) -> Tensor:
    """(B, N) bool: whether a match lies within so many rows and columns of the true place."""
    rows, columns = nearest // grid[1], nearest % grid[1]
    return ((rows - true.rows).abs() <= radius) & ((columns - true.columns).abs() <= radius)


def chance(true: Places, grid: tuple[int, int], radius: int) -> Tensor:
    """(B, N) share of the grid that lies within so many rows and columns of the true place."""
    spans = [
        (place + radius).clamp(max=count - 1) - (place - radius).clamp(min=0) + 1
        for place, count in zip((true.rows, true.columns), grid, strict=True)
    ]
    return spans[0] * spans[1] / (grid[0] * grid[1])
