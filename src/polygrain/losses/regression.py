"""Predicting one view's vector from another's."""

import torch
import torch.nn.functional as F
from torch import Tensor


def cosines(predictions: Tensor, targets: Tensor) -> Tensor:
    """Mean over images of the cosine of each prediction with each target, which gets no gradient; in float32.

    Args:
        predictions: (V, B, D).
        targets: (T, B, D).

    Returns:
        (T, V).
    """
    with torch.autocast(predictions.device.type, enabled=False):
        precision = torch.promote_types(predictions.dtype, torch.float32)
        unit = F.normalize(predictions.to(precision), dim=-1)
        aims = F.normalize(targets.detach().to(precision), dim=-1)
        return torch.einsum("tbd,vbd->tv", aims, unit) / predictions.shape[1]


def negative_cosine(predictions: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """-cos(p, sg z), averaged over images, weighted over pairs: -1 to 1 (SimSiam, arXiv:2011.10566, eq. 1).

    Args:
        weights: (T, V) of each pair.
    """
    agreement = cosines(predictions, targets)
    return -(weights.to(agreement) * agreement).sum()


def normalised_regression(predictions: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """||p/|p| - sg z/|z| ||^2 = 2 - 2 cos(p, z), likewise: 0 to 4 (BYOL, arXiv:2006.07733, eq. 2)."""
    distance = 2 - 2 * cosines(predictions, targets)
    return (weights.to(distance) * distance).sum()
