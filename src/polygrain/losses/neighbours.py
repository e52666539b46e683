"""Nearest neighbours by cosine similarity, and the votes they cast."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK_BYTES = 128 * 2**20


class Neighbours(NamedTuple):
    """The rows of a bank nearest to each query, nearest first."""

    similarity: Tensor  # (B, k) cosine, float32
    rows: Tensor  # (B, k) long, rows of the bank


def nearest(queries: Tensor, bank: Tensor, k: int, *, chunk_bytes: int = CHUNK_BYTES) -> Neighbours:
    """The k rows of `bank` (N, D) with the largest cosine to each of `queries` (B, D), in float32 whatever the context.

    Args:
        chunk_bytes: queries are taken in chunks whose similarities fit into this many bytes.
    """
    with torch.autocast(queries.device.type, enabled=False):
        bank = F.normalize(bank.float(), dim=1)
        parts = [
            (F.normalize(rows.float(), dim=1) @ bank.T).topk(k, dim=1) for rows in _chunks(queries, bank, chunk_bytes)
        ]
    return Neighbours(torch.cat([p.values for p in parts]), torch.cat([p.indices for p in parts]))


def _chunks(queries: Tensor, bank: Tensor, chunk_bytes: int) -> Iterator[Tensor]:
    rows = max(1, chunk_bytes // (4 * len(bank)))
    yield from torch.split(queries, rows)


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
    votes = weighted_votes(neighbours, labels, classes=classes, ks=ks, temperature=temperature)
    return torch.stack([ranked_classes(v, top) for v in votes])
