"""Redundancy reduction: the cross-correlation of two views' embeddings is the identity."""

from typing import NamedTuple

import torch
from torch import Tensor


class Redundancy(NamedTuple):
    """How far a cross-correlation is from the identity; both 0 at best."""

    invariance: Tensor  # () sum over i of (C_ii - 1)^2
    redundancy: Tensor  # () sum over i != j of C_ij^2


def barlow(correlation: Tensor) -> Redundancy:
    """Of the cross-correlation C (D, D) of two views (Barlow Twins, arXiv:2103.03230, eq. 1, without lambda)."""
    diagonal = correlation.diagonal()
    return Redundancy((diagonal - 1).square().sum(), correlation.square().sum() - diagonal.square().sum())


def cross_correlation(x: Tensor, y: Tensor, images: int) -> Tensor:
    """(n, D) and (n, D), each of mean 0 and deviation 1 over the whole batch, to their part X'Y / N of C (D, D).

    Args:
        images: N, of the whole batch; the parts of all ranks add up to C.
    """
    with torch.autocast(x.device.type, enabled=False):
        return x.mT @ y / images
