"""Contrastive losses."""

from typing import NamedTuple

import torch
from torch import Tensor

from polygrain.losses.streaming import logsumexp_of_products


class Contrast(NamedTuple):
    """An InfoNCE loss, and how often it would have picked right."""

    loss: Tensor
    accuracy: Tensor  # share of pairs whose positive beats every negative, weighted as the loss


def info_nce(predictions: Tensor, targets: Tensor, negatives: Tensor, weights: Tensor, temperature: float) -> Contrast:
    """-log [exp(p.z/T) / (exp(p.z/T) + sum_j exp(p.q_j/T))], averaged over images, weighted over pairs of views.

    (MoCo, arXiv:1911.05722, eq. 1; Mugs, arXiv:2203.14415, eq. 2.) The sum over negatives depends on the prediction
    alone, so it is taken once per view and shared by all targets. Computed in float32.

    Args:
        predictions: (V, B, D) unit vectors of the student's views.
        targets: (T, B, D) unit vectors of the teacher's views; no gradient reaches them.
        negatives: (K, D) unit vectors; no gradient reaches them.
        weights: (T, V) of each pair.
    """
    views, images, _ = predictions.shape
    with torch.autocast(predictions.device.type, enabled=False):
        predictions, targets = predictions.float(), targets.detach().float()
        against, closest = logsumexp_of_products(predictions.flatten(0, 1), negatives, 1 / temperature)
        positive = torch.einsum("vbd,tbd->tvb", predictions, targets) / temperature
        loss = torch.logaddexp(positive, against.view(views, images)) - positive  # (T, V, B)
        right = (positive > closest.view(views, images)).float()
        weights = weights.to(loss)
        return Contrast((weights * loss.mean(2)).sum(), (weights * right.mean(2)).sum().detach())
