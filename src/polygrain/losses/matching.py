"""VICRegL's matching: every vector of a view and its nearest neighbour in another view of the same image."""

from typing import NamedTuple

import torch
from torch import Tensor


class Matches(NamedTuple):
    """Pairs of positions, image by image: slot m pairs `inputs[b, m]` of one view with `candidates[b, m]`."""

    inputs: Tensor  # (B, M) long, ascending
    candidates: Tensor  # (B, M) long; one candidate may serve many inputs


@torch.no_grad()
def location_distances(a: Tensor, b: Tensor) -> Tensor:
    """Distances between patch centres (B, P, 2) and (B, Q, 2) in source-image pixels: (B, P, Q).

    Coordinates of thousands of pixels are subtracted before they are squared, which keeps ties between
    symmetric cells exact.
    """
    return torch.cdist(a.float(), b.float(), compute_mode="donot_use_mm_for_euclid_dist")


@torch.no_grad()
def feature_distances(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distances between local embeddings (B, P, D) and (B, Q, D), not normalised: (B, P, Q)."""
    with torch.autocast(a.device.type, enabled=False):
        return torch.cdist(a.detach(), b.detach())


@torch.no_grad()
def nearest(distances: Tensor, count: int) -> Matches:
    """The `count` inputs nearest to any candidate, each with that candidate, in ascending (raster) order of inputs.

    Many inputs may share a candidate and no distance is too large: the threshold of the paper is this count
    (VICRegL, arXiv:2210.01571, sec. 3.2, and official code). Of equal distances the lower index comes first.

    Args:
        distances: (B, P, Q).
        count: at most P.
    """
    nearest_candidate = distances.argmin(2)  # (B, P)
    if count == distances.shape[1]:
        everything = torch.arange(count, device=distances.device).expand(len(distances), -1)
        return Matches(everything, nearest_candidate)
    distance = distances.gather(2, nearest_candidate[..., None]).squeeze(2)
    inputs = distance.sort(dim=1, stable=True).indices[:, :count].sort(dim=1).values
    return Matches(inputs, nearest_candidate.gather(1, inputs))
