"""Patch vectors as colours: their first three principal components, in one basis for all images."""

from typing import NamedTuple

import torch
from torch import Tensor


class Basis(NamedTuple):
    """Principal directions of a cloud of patch vectors, and the range of the cloud along each."""

    mean: Tensor  # (D,)
    directions: Tensor  # (3, D) orthonormal, largest variance first
    low: Tensor  # (3,) 1st percentile of the projections
    high: Tensor  # (3,) 99th percentile

    def project(self, patches: Tensor) -> Tensor:
        """(..., D) to (..., 3)."""
        return (patches.double() - self.mean) @ self.directions.T


def fit_basis(patches: Tensor) -> Basis:
    """The basis of all patches (..., D) together, D at least 3.

    A principal direction has no sign of its own; here each points to where the projections have their longer tail,
    which, unlike the sign of a loading, a rotation of the features does not change.
    """
    vectors = patches.detach().cpu().double().flatten(0, -2)  # (M, D)
    mean = vectors.mean(dim=0)
    centred = vectors - mean
    _, directions = torch.linalg.eigh(centred.T @ centred / len(centred))  # rising eigenvalues, in columns
    directions = directions[:, -3:].flip(1).T
    skew = (centred @ directions.T).pow(3).mean(dim=0)
    directions = directions * torch.where(skew < 0, -1.0, 1.0)[:, None]
    basis = Basis(mean, directions, torch.zeros(3), torch.ones(3))
    low, high = torch.quantile(_at_most(basis.project(vectors), 1_000_000), torch.tensor([0.01, 0.99]).double(), dim=0)
    return basis._replace(low=low, high=high)


def _at_most(rows: Tensor, count: int) -> Tensor:
    """Evenly spaced rows, since quantiles of very long tensors are refused."""
    return rows[:: -(-len(rows) // count)]


def patch_colours(basis: Basis, patches: Tensor, grid: tuple[int, int]) -> Tensor:
    """Patches (n, N, D) as pictures (n, 3, rows, columns) uint8; a direction without spread is grey.

    The range from the 1st to the 99th percentile fills each colour channel.
    """
    spread = basis.high - basis.low
    flat = spread <= 1e-9 * basis.directions.new_tensor(1.0).maximum(spread.max())
    share = ((basis.project(patches.cpu()) - basis.low) / spread.clamp_min(1e-30)).clamp(0, 1)
    share = torch.where(flat, 0.5, share)
    return (share * 255).round().to(torch.uint8).view(len(share), *grid, 3).permute(0, 3, 1, 2)
