"""What a cloud of vectors looks like, without labels: the gauges of collapse."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def spread(vectors: Tensor) -> Tensor:
    """Standard deviation of each dimension of the unit vectors, averaged, times sqrt(D).

    1 for a cloud that fills all directions alike, 0 for a collapsed one (SimSiam, arXiv:2011.10566).

    Args:
        vectors: (B, D) with B > 1.
    """
    unit = F.normalize(_real(vectors), dim=1)
    return unit.std(dim=0, correction=0).mean() * math.sqrt(vectors.shape[1])


def rankme(vectors: Tensor) -> Tensor:
    """RankMe: exp(-sum p log p) with p = sigma / ||sigma||_1 + 1e-7, sigma the singular values, not centred.

    Between 1 and min(B, D); compare runs of one method only (arXiv:2210.02885). The singular values are the square
    roots of the eigenvalues of the smaller Gram matrix, which is many times faster; in float64, on the CPU, what
    the squares lose lies below 1e-7 of the largest, where the formula's own constant is.

    Args:
        vectors: (B, D); the paper uses B = 25,600, and small B biases it downwards.
    """
    rows = vectors.detach().to("cpu", torch.float64)
    gram = rows @ rows.T if len(rows) < rows.shape[1] else rows.T @ rows
    singular = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt()
    share = singular / singular.sum().clamp_min(torch.finfo(torch.float64).tiny) + 1e-7
    return torch.exp(-(share * share.log()).sum()).to(vectors.device, torch.float32)


def mean_cosine(vectors: Tensor) -> Tensor:
    """Mean cosine over all pairs of different rows of (B, D), B > 1: 1 when collapsed to one direction.

    sum_{i != j} u_i u_j = ||sum u||^2 - sum ||u||^2, so that no (B, B) matrix is made.
    """
    unit = F.normalize(_real(vectors), dim=1)
    pairs = unit.shape[0] * (unit.shape[0] - 1)
    return (unit.sum(dim=0).square().sum() - unit.square().sum()) / pairs


def _real(vectors: Tensor) -> Tensor:
    """In float32, or float64 where they are."""
    return vectors.detach().to(torch.promote_types(vectors.dtype, torch.float32))
