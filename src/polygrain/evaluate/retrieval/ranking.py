"""Scores of ranked lists: average precision as the retrieval benchmarks define it, recall and precision at k."""

from typing import NamedTuple

import torch
from torch import Tensor

BLOCK_BYTES = 64 * 2**20  # of similarities at a time


class Ranks(NamedTuple):
    """Where the positives of each query stand in its list, junk taken out."""

    ranks: Tensor  # (Q, P) long, rising, counted from 0; -1 behind the last one
    positives: Tensor  # (Q,) long, how many there are in the database


def ranks_of(similarity: Tensor, positive: Tensor, junk: Tensor | None = None) -> Ranks:
    """Ranks the database (n,) for each query by falling similarity, equals in the order they stand in.

    Args:
        similarity: (Q, n).
        positive: (Q, n) bool.
        junk: (Q, n) bool, what counts neither way, as if it were not in the database.
    """
    order = similarity.argsort(dim=1, descending=True, stable=True)
    good = positive.gather(1, order)
    place = torch.arange(similarity.shape[1], device=similarity.device).expand_as(order)
    if junk is not None:
        good = good & ~junk.gather(1, order)
        place = (~junk.gather(1, order)).cumsum(dim=1) - 1
    counts = good.sum(dim=1)
    most = int(counts.max()) if len(counts) else 0
    ranks = torch.where(good, place, similarity.shape[1]).sort(dim=1).values[:, :most]
    return Ranks(torch.where(ranks < similarity.shape[1], ranks, -1), counts)


def average_precision(found: Ranks, limit: int | None = None) -> Tensor:
    """Area under precision over recall by trapezoids, (Q,) float64; NaN where a query has no positive.

    The sum over positives j of ((j / r_j) + (j + 1) / (r_j + 1)) / 2 over their number, with ranks r_j from 0 and the
    first term 1 at rank 0 (Holidays and revisited Oxford and Paris: Radenovic et al., arXiv:1803.11285, official
    `evaluate.py`). The step-wise area of most libraries is larger.

    Args:
        limit: lists are cut after so many; positives behind count as never found (Copydays: 20).
    """
    there = found.ranks >= 0 if limit is None else (found.ranks >= 0) & (found.ranks < limit)
    rank = found.ranks.clamp(min=0).double()  # (Q, P)
    before = torch.arange(rank.shape[1], device=rank.device, dtype=torch.float64)
    left = torch.where(rank == 0, 1, before / rank.clamp(min=1))
    right = (before + 1) / (rank + 1)
    return ((left + right) / 2 * there).sum(dim=1) / found.positives


def recall_at(found: Ranks, k: int) -> Tensor:
    """1 where a positive is among the first k, else 0: (Q,) float64; NaN where a query has no positive."""
    hit = ((found.ranks >= 0) & (found.ranks < k)).any(dim=1).double()
    return torch.where(found.positives > 0, hit, torch.nan)


def precision_at(found: Ranks, k: int) -> Tensor:
    """Share of positives among the first k, or up to the last positive where that comes sooner: (Q,) float64.

    (Revisited Oxford and Paris, arXiv:1803.11285, official `evaluate.py`.) NaN where a query has no positive.
    """
    last = found.ranks.amax(dim=1) + 1 if found.ranks.shape[1] else found.positives
    reach = last.clamp(max=k)  # (Q,)
    hits = ((found.ranks >= 0) & (found.ranks < reach[:, None])).sum(dim=1)
    return hits.double() / reach


def blocks(queries: int, database: int, block_bytes: int = BLOCK_BYTES) -> list[slice]:
    """Rows of queries whose similarities to the whole database fit into so many bytes."""
    rows = max(1, block_bytes // (4 * max(1, database)))
    return [slice(start, min(queries, start + rows)) for start in range(0, queries, rows)]
