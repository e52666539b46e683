"""Neighbourhoods: whether an image keeps its neighbours when it is changed."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from polygrain.losses.neighbours import nearest

Floats = NDArray[np.float64]


def neighbour_lists(queries: Tensor, bank: Tensor, k: int, order: Tensor | None = None) -> Tensor:
    """(M, k) long: the k rows of `bank` (N, D) nearest to each query by cosine, nearest first, itself left out.

    Args:
        queries: (M, D), of which row i is image i of the bank, as it is or changed.
        order: (N,) of the rows of the bank, by which equally near ones are taken; as they are by default.
    """
    order = torch.arange(len(bank), device=bank.device) if order is None else order
    rows = order[nearest(queries, bank[order], k + 1).rows]  # (M, k + 1)
    own = rows == torch.arange(len(rows), device=rows.device)[:, None]
    own[~own.any(1), -1] = True  # the last one goes where the image is not among its nearest
    return rows[~own].view(len(rows), k)


def overlap(one: Tensor, other: Tensor) -> Floats:
    """(M,) share of the k entries that two lists (M, k) of different rows have in common."""
    common = (one[:, :, None] == other[:, None, :]).any(2)
    return common.double().mean(1).numpy()
