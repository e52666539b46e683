"""How vectors lie on the unit sphere."""

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 1024  # rows whose distances are held at a time


def alignment(one: Tensor, other: Tensor) -> float:
    """Mean squared distance of two views of an image on the unit sphere (Wang & Isola, arXiv:2005.10242).

    0 where views have the same direction, 2 for unrelated ones.

    Args:
        one, other: (n, D).
    """
    difference = F.normalize(one.double(), dim=1) - F.normalize(other.double(), dim=1)
    return float(difference.square().sum(1).mean())


def uniformity(vectors: Tensor, t: float = 2.0) -> float:
    """log of the mean of exp(-t ||u - v||^2) over all pairs of different rows (N, D) (Wang & Isola, arXiv:2005.10242).

    0 where all rows have one direction; -4 at least, for t = 2, which many dimensions come near to.
    """
    unit = F.normalize(vectors.double(), dim=1)
    sums = [torch.exp(-2 * t * (1 - rows @ unit.T).clamp_min(0)).sum() for rows in torch.split(unit, CHUNK)]
    n = len(unit)
    return float(((torch.stack(sums).sum() - n) / (n * (n - 1))).log())
