"""The images of a set on a plane, by t-SNE, and how far that picture can be trusted."""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE, trustworthiness
from torch import Tensor

from polygrain.losses.neighbours import nearest

PERPLEXITY, LEAST_PERPLEXITY = 30.0, 5.0
NEIGHBOURS = 10
FEWEST = 20  # images
Floats = NDArray[np.float64]


class Map(NamedTuple):
    """A picture of n images on a plane, and numbers that say what it is worth."""

    places: Floats  # (n, 2)
    trust: float  # trustworthiness of the map
    pca_trust: float  # of the first two principal components
    purity: float | None  # mean share of the 10 nearest on the map with the image's own label
    feature_purity: float | None  # the same among the features


def tsne_map(vectors: Tensor, labels: NDArray[np.int64] | None, *, seed: int = 0) -> Map:
    """t-SNE of the directions of vectors (n, D), n at least 20, from their first 50 principal components.

    Args:
        labels: (n,) with -1 for none.

    Raises:
        ValueError: for fewer images, or vectors that are all alike.
    """
    if len(vectors) < FEWEST:
        raise ValueError(f"{len(vectors)} images are too few for a map; it takes {FEWEST}")
    unit = F.normalize(vectors.double(), dim=1).numpy()
    if np.ptp(unit, axis=0).max() < 1e-6:
        raise ValueError("all vectors are alike, so there is no map of them")
    reduced = PCA(min(50, *unit.shape), random_state=seed).fit_transform(unit)
    perplexity = max(LEAST_PERPLEXITY, min(PERPLEXITY, (len(unit) - 1) / 4))
    places = TSNE(2, perplexity=perplexity, init="pca", random_state=seed, n_jobs=1).fit_transform(reduced)
    k = min(NEIGHBOURS, (len(unit) - 1) // 2)  # it is defined for fewer than half of them
    trust, pca_trust = (trustworthiness(unit, flat, n_neighbors=k) for flat in (places, reduced[:, :2]))
    places = places.astype(np.float64)
    if labels is None:
        return Map(places, float(trust), float(pca_trust), None, None)
    on_map, among_features = purity(torch.from_numpy(places), labels, plane=True), purity(vectors, labels, plane=False)
    return Map(places, float(trust), float(pca_trust), on_map, among_features)


def purity(vectors: Tensor, labels: NDArray[np.int64], *, plane: bool) -> float | None:
    """Mean share of the 10 nearest others that have the image's label, over images that have one.

    Args:
        vectors: (n, D).
        plane: nearest by distance, else by cosine.
    """
    rows = torch.from_numpy(np.flatnonzero(labels >= 0))
    if len(rows) <= NEIGHBOURS:
        return None
    some, truth = vectors[rows].float(), torch.from_numpy(labels)[rows]
    if plane:
        away = torch.cdist(some, some).fill_diagonal_(torch.inf)
        found = away.topk(NEIGHBOURS, largest=False).indices
    else:
        found = nearest(some, some, NEIGHBOURS + 1).rows
        own = found == torch.arange(len(rows))[:, None]
        own[~own.any(1), -1] = True
        found = found[~own].view(-1, NEIGHBOURS)
    return float((truth[found] == truth[:, None]).double().mean())
