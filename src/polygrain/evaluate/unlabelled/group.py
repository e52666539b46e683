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
ITERATIONS, STARTS = 20, 2

Floats = NDArray[np.float64]


class Grouping(NamedTuple):
    """Two k-means in each of some runs, on the two halves of a random split of the images.

    A cloud without any clusters is cut into the same pieces again too, if a few directions vary most: only what
    `stable` has above `stable_by_shape` speaks of groups.
    """

    balance: Floats  # (R,) entropy of the shares of the clusters / log K: 1 where all are equal
    stable: Floats  # (R,) adjusted mutual information of the two assignments of all images: 1 the same, 0 chance
    stable_by_shape: Floats  # (R,) of a Gaussian cloud of the same mean and covariance
    kept: Floats  # (R,) the same of images and their changed selves, by one k-means


def grouping(plain: Tensor, views: Tensor, cloud: Tensor, clusters: int, *, seed: int) -> Grouping:
    """Groups unit vectors by k-means.

    Args:
        plain: (N, D).
        views: (M, D), random views of the first M images.
        cloud: (N, D) without clusters and of the same shape, see `gaussian`.
        clusters: K, at most N / 2.
    """
    rows, changed, shape = (F.normalize(part.float(), dim=1) for part in (plain, views, cloud))
    found = []
    for run in range(RUNS):
        random = [seed, clusters, run]
        centroids, other = _by_halves(rows, clusters, random)
        by_shape = (assigned(shape, centres) for centres in _by_halves(shape, clusters, random))
        one, two = assigned(rows, centroids), assigned(rows, other)
        moved = assigned(changed, centroids)
        found.append(
            (
                (balance(one, clusters) + balance(two, clusters)) / 2,
                adjusted_mutual_info_score(one, two),
                adjusted_mutual_info_score(*by_shape),
                adjusted_mutual_info_score(one[: len(moved)], moved),
            )
        )
    return Grouping(*(np.array(column) for column in zip(*found, strict=True)))


def gaussian(rows: Tensor, seed: int) -> Tensor:
    """As many random vectors as (N, D) rows, of their mean and covariance: R of x = QR is a root of x' x."""
    x = rows.double()
    mean, n = x.mean(0), len(x)
    root = torch.linalg.qr(x - mean, mode="r").R / n**0.5  # (min(N, D), D)
    numbers = torch.from_numpy(np.random.default_rng(seed).standard_normal((n, len(root))))
    cloud: Tensor = mean + numbers @ root
    return cloud


def _by_halves(rows: Tensor, clusters: int, random: list[int]) -> tuple[Tensor, Tensor]:
    """Centroids (K, D) of each half of a random split."""
    order = torch.from_numpy(np.random.default_rng(random).permutation(len(rows)))
    halves = (order[: len(rows) // 2], order[len(rows) // 2 :])
    seeds = np.random.SeedSequence(random).generate_state(2).tolist()
    one, other = (
        kmeans(rows[half], clusters, iterations=ITERATIONS, redos=STARTS, seed=start).centroids
        for half, start in zip(halves, seeds, strict=True)
    )
    return one, other


def assigned(rows: Tensor, centroids: Tensor) -> NDArray[np.int64]:
    """(n,) the centroid nearest to each row."""
    nearest: NDArray[np.int64] = torch.cdist(rows, centroids).argmin(1).numpy()
    return nearest


def balance(clusters: NDArray[np.int64], count: int) -> float:
    """Entropy of the shares of `count` clusters over log count: 0 where one holds everything, 1 where all are equal."""
    share = torch.bincount(torch.from_numpy(clusters), minlength=count).double() / len(clusters)
    return float(torch.special.entr(share).sum() / np.log(count))
