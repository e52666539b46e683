"""k-means of rows that every rank holds, shared among the ranks: all come to the same clusters."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from polygrain import distributed

CELLS = 2**24  # products of rows and centroids to hold at a time
ROWS = 2**16  # differences to hold at a time
NUDGE = 1 / 1024  # by which two halves of a split cluster begin apart


class Clusters(NamedTuple):
    """Where the rows lie."""

    centroids: Tensor  # (K, D)
    clusters: Tensor  # (N,) long
    distances: Tensor  # (N,) Euclidean, to the centroid of the cluster


@torch.no_grad()
def spherical_kmeans(rows: Tensor, count: int, *, iterations: int, seed: int) -> Clusters:
    """Clusters by cosine; centroids have length 1, and an empty cluster keeps the one it had.

    They start as different rows, drawn from a generator of this seed (DeepCluster-v2, arXiv:2006.09882, code 06b1b7c).

    Args:
        rows: (N, D) unit vectors, the same on all ranks.
    """
    centroids = _draw(rows, count, torch.Generator().manual_seed(seed))
    own = _share(rows)
    for _ in range(iterations):
        sums, members = _sums(own, _nearest(own, centroids), count)
        means = F.normalize(sums / members.clamp_min(1)[:, None], dim=1)
        centroids = torch.where(members[:, None] > 0, means, centroids)
    return _found(rows, own, centroids)


@torch.no_grad()
def kmeans(rows: Tensor, count: int, *, iterations: int, redos: int, seed: int) -> Clusters:
    """Clusters by Euclidean distance, the best of `redos` starts from different rows.

    An empty cluster takes half of one of the largest, which is split by a nudge: faiss, which PCL (arXiv:2005.04966)
    calls, draws the cluster to split at random.

    Args:
        rows: (N, D), the same on all ranks.
    """
    generator = torch.Generator().manual_seed(seed)
    own = _share(rows)
    best: Clusters | None = None
    for _ in range(redos):
        centroids = _draw(rows, count, generator)
        for _ in range(iterations):
            sums, members = _sums(own, _nearest(own, centroids), count)
            centroids = _split(sums / members.clamp_min(1)[:, None], members)
        found = _found(rows, own, centroids)
        if best is None or found.distances.square().sum() < best.distances.square().sum():
            best = found
    assert best is not None
    return best


def _draw(rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
    return rows[torch.randperm(len(rows), generator=generator)[:count].to(rows.device)]


def _share(rows: Tensor) -> Tensor:
    """This rank's rows; the last ranks may have fewer."""
    share = -(-len(rows) // distributed.world_size())
    return rows[distributed.rank() * share : (distributed.rank() + 1) * share]


def _nearest(rows: Tensor, centroids: Tensor) -> Tensor:
    """(n,) the centroid at the least Euclidean distance of each row."""
    halves = centroids.square().sum(1) / 2
    chunk = max(1, CELLS // len(centroids))
    starts = range(0, max(1, len(rows)), chunk)
    return torch.cat([(rows[i : i + chunk] @ centroids.T - halves).argmax(1) for i in starts])


def _sums(rows: Tensor, clusters: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Sums (K, D) and numbers (K,) of the rows of each cluster over all ranks, in the same order in every run."""
    members = torch.bincount(clusters, minlength=count)
    in_order = rows[clusters.argsort(stable=True)]
    sums = torch.segment_reduce(in_order, "sum", lengths=members, axis=0, initial=0)
    return distributed.total(sums), distributed.total(members)


def _split(centroids: Tensor, members: Tensor) -> Tensor:
    empty = (members == 0).nonzero().flatten()
    if not len(empty):
        return centroids
    largest = members.argsort(descending=True, stable=True)[: len(empty)]
    empty = empty[: len(largest)]
    nudge = NUDGE * (1 - 2 * (torch.arange(centroids.shape[1], device=centroids.device) % 2))
    donors = centroids[largest]
    centroids = centroids.index_copy(0, empty, donors * (1 + nudge))
    return centroids.index_copy(0, largest, donors * (1 - nudge))


def _found(rows: Tensor, own: Tensor, centroids: Tensor) -> Clusters:
    share = -(-len(rows) // distributed.world_size())
    mine = F.pad(_nearest(own, centroids), (0, share - len(own)))
    clusters = distributed.gather(mine)[: len(rows)]
    starts = range(0, len(rows), ROWS)
    away = [torch.linalg.vector_norm(rows[i : i + ROWS] - centroids[clusters[i : i + ROWS]], dim=1) for i in starts]
    return Clusters(centroids, clusters, torch.cat(away))
