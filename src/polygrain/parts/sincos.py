"""Fixed two-dimensional sine-cosine position codes."""

from typing import Literal

import torch
from torch import Tensor


def sincos_positions(
    grid: tuple[int, int], dim: int, *, first: Literal["row", "column"], prefix: int = 1, base: float = 1e4
) -> Tensor:
    """Codes of a grid of patches, row-major, after `prefix` codes of zeros: (1, prefix + rows * columns, D).

    Half of a code tells one coordinate p, the other half the other; each half is sin(p w), then cos(p w), with
    w_i = base^(-i / (D/4)). MoCo-v3 (arXiv:2104.02057, official code) begins with the row, MAE with the column.

    Raises:
        ValueError: when the width does not divide by four.
    """
    if dim % 4:
        raise ValueError(f"sine-cosine position codes need a width that divides by 4; this encoder's is {dim}")
    rows, columns = (torch.arange(length, dtype=torch.float64) for length in grid)
    frequency = base ** -(torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    row, column = torch.meshgrid(rows, columns, indexing="ij")
    coordinates = (row, column) if first == "row" else (column, row)
    angles = [coordinate.flatten()[:, None] * frequency for coordinate in coordinates]  # each (N, D/4)
    codes = torch.cat([part for angle in angles for part in (angle.sin(), angle.cos())], dim=1)
    return torch.cat([codes.new_zeros(prefix, dim), codes]).float()[None]
