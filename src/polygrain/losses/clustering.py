"""Predicting the cluster in which an image was found."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

NONE = -100  # the cluster of an image that has none yet


def cluster_prediction(embeddings: Tensor, centroids: Tensor, clusters: Tensor, temperature: float) -> Tensor:
    """CE(z C_h^T / T, cluster of the image), averaged over views, images that have a cluster, and clusterings.

    (DeepCluster-v2, arXiv:2006.09882, app. B.) Computed in float32.

    Args:
        embeddings: (V, B, D) unit vectors.
        centroids: (H, K, D) unit vectors; no gradient reaches them.
        clusters: (H, B) long, NONE where there is none.
    """
    with torch.autocast(embeddings.device.type, enabled=False):
        precision = torch.promote_types(embeddings.dtype, torch.float32)
        scores = torch.einsum("vbd,hkd->hvbk", embeddings.to(precision), centroids.detach().to(precision))
        wanted = clusters[:, None].expand(-1, len(embeddings), -1)  # (H, V, B)
        total = F.cross_entropy(
            scores.flatten(0, 2) / temperature, wanted.flatten(), reduction="sum", ignore_index=NONE
        )
        return total / (wanted != NONE).sum().clamp_min(1)


class PrototypeContrast(NamedTuple):
    """A ProtoNCE loss, and how often it would have picked right."""

    loss: Tensor
    accuracy: Tensor


def prototype_nce(
    queries: Tensor, centroids: Tensor, concentration: Tensor, candidates: Tensor, right: Tensor
) -> PrototypeContrast:
    """-log softmax over candidate clusters c of q.c / phi_c, at the query's own (PCL, arXiv:2005.04966, eq. 11).

    Computed in float32.

    Args:
        queries: (B, D) unit vectors.
        centroids: (K, D) unit vectors; no gradient reaches them.
        concentration: (K,) phi, the temperature of each cluster.
        candidates: (C,) long, the clusters to choose from.
        right: (B,) long, where among the candidates each query's own cluster is.
    """
    with torch.autocast(queries.device.type, enabled=False):
        precision = torch.promote_types(queries.dtype, torch.float32)
        chosen = centroids.detach()[candidates].to(precision)  # (C, D)
        logits = queries.to(precision) @ chosen.T / concentration[candidates].to(precision)
        accuracy = (logits.detach().argmax(1) == right).float().mean()
        return PrototypeContrast(F.cross_entropy(logits, right), accuracy)


@torch.no_grad()
def concentrations(distances: Tensor, clusters: Tensor, count: int, temperature: float) -> Tensor:
    """phi_c = mean distance to the centroid / ln(members + 10), scaled to a mean of T (PCL, arXiv:2005.04966, eq. 12).

    As in the authors' code (964da1f): a cluster of one image or none takes the largest phi, and all are clipped to
    their 10th and 90th percentiles before they are scaled.

    Args:
        distances: (N,) of each image to the centroid of its cluster.
        clusters: (N,) long.

    Returns:
        (K,).
    """
    members = torch.bincount(clusters, minlength=count)
    summed = torch.bincount(clusters, weights=distances.double(), minlength=count)
    phi = summed / members.clamp_min(1) / torch.log(members.double() + 10)
    phi = torch.where(members > 1, phi, phi[members > 1].max() if (members > 1).any() else 1.0)
    bounds = _percentiles(phi, (0.1, 0.9))
    phi = phi.clamp(*bounds)
    return (temperature * phi / phi.mean()).to(distances.dtype)


def _percentiles(values: Tensor, shares: tuple[float, float]) -> list[float]:
    """By linear interpolation; torch.quantile refuses more than 16 million values and some devices."""
    ordered = values.sort().values
    places = [share * (len(ordered) - 1) for share in shares]
    floors = [int(place) for place in places]
    return [
        float(ordered[low].lerp(ordered[min(low + 1, len(ordered) - 1)], place - low))
        for low, place in zip(floors, places, strict=True)
    ]
