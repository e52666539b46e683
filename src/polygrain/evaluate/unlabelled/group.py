"""Groups: whether k-means finds clusters that are of some size, and the same ones when it is asked again."""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.metrics import adjusted_mutual_info_score
from torch import Tensor

from polygrain.parts.kmeans import kmeans

RUNS = 5
ITERATIONS, STARTS = 30, 3

Floats = NDArray[np.float64]


class Grouping(NamedTuple):
    """Two k-means in each of some runs, on the two halves of a random split of the images."""

    balance: Floats  # (R,) entropy of the shares of the clusters / log K: 1 where all are equal
    stable: Floats  # (R,) adjusted mutual information of the two assignments of all images: 1 the same, 0 chance
    kept: Floats  # (R,) the same of images and their changed selves, by one k-means


def grouping(plain: Tensor, views: Tensor, clusters: int, *, seed: int) -> Grouping:
    """Groups unit vectors by k-means.

    Args:
        plain: (N, D).
        views: (M, D), random views of the first M images.
        clusters: K, at most N / 2.
    """
    rows, changed = F.normalize(plain.double(), dim=1), F.normalize(views.double(), dim=1)
    found = []
    for run in range(RUNS):
        order = torch.from_numpy(np.random.default_rng([seed, clusters, run]).permutation(len(rows)))
        halves = (order[: len(rows) // 2], order[len(rows) // 2 :])
        centroids = [
            kmeans(rows[half], clusters, iterations=ITERATIONS, redos=STARTS, seed=seed + 2 * run + i).centroids
            for i, half in enumerate(halves)
        ]
        one, other = (assigned(rows, centres) for centres in centroids)
        moved = assigned(changed, centroids[0])
        found.append(
            (
                (balance(one, clusters) + balance(other, clusters)) / 2,
                adjusted_mutual_info_score(one, other),
                adjusted_mutual_info_score(one[: len(moved)], moved),
            )
        )
    return Grouping(*(np.array(column) for column in zip(*found, strict=True)))


def assigned(rows: Tensor, centroids: Tensor) -> NDArray[np.int64]:
    """(n,) the centroid nearest to each row."""
    nearest: NDArray[np.int64] = torch.cdist(rows, centroids).argmin(1).numpy()
    return nearest


def balance(clusters: NDArray[np.int64], count: int) -> float:
    """Entropy of the shares of `count` clusters over log count: 0 where one holds everything, 1 where all are equal."""
    share = torch.bincount(torch.from_numpy(clusters), minlength=count).double() / len(clusters)
    return float(torch.special.entr(share).sum() / np.log(count))
