"""Nearest neighbours by cosine similarity, and the votes they cast."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK_BYTES = 128 * 2**20
VOTE_BYTES = 16  # of one class for one query: votes, and their sorted values and places
FEWEST_QUERIES = 256  # at once; with fewer, reading the bank costs more than multiplying with it


class Neighbours(NamedTuple):
    """The rows of a bank nearest to each query, nearest first."""

    similarity: Tensor  # (B, k) cosine, float32
    rows: Tensor  # (B, k) long, rows of the bank


def nearest(queries: Tensor, bank: Tensor, k: int, *, chunk_bytes: int = CHUNK_BYTES) -> Neighbours:
    """The k rows of `bank` (N, D) with the largest cosine to each of `queries` (B, D), in float32 whatever the context.

    Beyond bank, queries and result this needs little more memory than `chunk_bytes`, however many rows there are.

    Args:
        chunk_bytes: similarities are taken in pieces of so many bytes; for a large bank they are of some queries and
            some rows, and the nearest of each piece are merged.
    """
    k = min(k, len(bank))
    together, rows = chunk_bytes // (4 * len(bank)), len(bank)  # queries whose similarities to all rows fit
    if together < min(len(queries), FEWEST_QUERIES):
        together, rows = FEWEST_QUERIES, max(k, chunk_bytes // (4 * FEWEST_QUERIES))
    together = max(1, together)
    best = Neighbours(
        torch.full((len(queries), k), -torch.inf, device=queries.device),
        torch.zeros(len(queries), k, dtype=torch.long, device=queries.device),
    )
    with torch.autocast(queries.device.type, enabled=False):
        for start in range(0, len(bank), rows):
            piece = F.normalize(bank[start : start + rows].float(), dim=1)
            for some, *kept in zip(*(torch.split(of, together) for of in (queries, *best)), strict=True):
                _merge(Neighbours(*kept), F.normalize(some.float(), dim=1) @ piece.T, start)
    return best


def _merge(best: Neighbours, similarity: Tensor, start: int) -> None:
    """Writes into `best` (B, k) the nearest of it and of the rows from `start` on, by their similarity (B, n)."""
    k = best.rows.shape[1]
    found = similarity.topk(min(k, similarity.shape[1]), dim=1)
    rows = found.indices + start
    if start == 0:  # a piece has k rows or more, but for the last one
        best.similarity.copy_(found.values)
        best.rows.copy_(rows)
        return
    merged = torch.cat([best.similarity, found.values], dim=1).topk(k, dim=1)
    best.similarity.copy_(merged.values)
    best.rows.copy_(torch.cat([best.rows, rows], dim=1).gather(1, merged.indices))


def weighted_votes(
    neighbours: Neighbours, labels: Tensor, *, classes: int, ks: Sequence[int], temperature: float
) -> Iterator[Tensor]:
    """Sums of exp(similarity / temperature) by class, for the k nearest neighbours of each k in rising order.

    One pass: the votes of a larger k are those of the smaller one and a few more. Each query's weights are divided
    by its largest, which changes no order among its classes and cannot overflow; DINO's `eval_knn.py`
    (arXiv:2104.14294) divides by nothing and so needs temperatures that are not small.

    Args:
        labels: (N,) long, class of each row of the bank.
        ks: rising numbers of neighbours, the last at most the number of columns of `neighbours`.

    Yields:
        (B, C) votes, one tensor for each k, to be read before the next is asked for.
    """
    similarity = neighbours.similarity
    weight = torch.exp((similarity - similarity[:, :1]) / temperature)  # (B, k)
    voted = labels[neighbours.rows]  # (B, k)
    votes = weight.new_zeros(len(weight), classes)
    done = 0
    for k in ks:
        votes.scatter_add_(1, voted[:, done:k], weight[:, done:k])
        done = k
        yield votes


def ranked_classes(votes: Tensor, top: int) -> Tensor:
    """The `top` classes with most votes (B, top), best first, ties to the lowest class; -1 where none voted."""
    ranked = votes.sort(dim=1, descending=True, stable=True)
    return ranked.indices.masked_fill(ranked.values <= 0, -1)[:, :top]


def knn_predict(
    queries: Tensor,
    bank: Tensor,
    labels: Tensor,
    *,
    classes: int,
    ks: Sequence[int],
    temperature: float = 0.07,
    top: int = 5,
    chunk_bytes: int = CHUNK_BYTES,
) -> Tensor:
    """Weighted kNN of DINO for several k in one pass: ranked class predictions (len(ks), B, min(top, C)).

    Args:
        queries: (B, D).
        bank: (N, D).
        labels: (N,) long, class of each row of the bank, in [0, classes).
        ks: rising numbers of neighbours, each at most N.
    """
    neighbours = nearest(queries, bank, ks[-1], chunk_bytes=chunk_bytes)
    together = max(1, chunk_bytes // (VOTE_BYTES * classes))  # queries
    parts = []
    for similarity, rows in zip(*(torch.split(of, together) for of in neighbours), strict=True):
        votes = weighted_votes(Neighbours(similarity, rows), labels, classes=classes, ks=ks, temperature=temperature)
        parts.append(torch.stack([ranked_classes(v, top) for v in votes]))
    return torch.cat(parts, dim=1)
