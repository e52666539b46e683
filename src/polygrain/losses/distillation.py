"""Self-distillation over prototypes."""

import torch
from torch import Tensor

from polygrain.losses.streaming import logsumexp_of_products


def sharpened(logits: Tensor, centre: Tensor, temperature: float) -> Tensor:
    """softmax((logits - centre) / temperature): the teacher's assignment to prototypes (DINO, arXiv:2104.14294).

    Args:
        logits: (..., K).
        centre: (K,).

    Returns:
        (..., K) float32, without gradient.
    """
    with torch.no_grad(), torch.autocast(logits.device.type, enabled=False):
        return ((logits.float() - centre) / temperature).softmax(-1)


def prototype_distillation(
    student: Tensor, prototypes: Tensor, targets: Tensor, weights: Tensor, temperature: float
) -> Tensor:
    """Cross-entropy - sum_c P[c] log softmax(student . prototypes / T)[c], averaged over images, weighted over pairs.

    (DINO, arXiv:2104.14294, eq. 2; Mugs, arXiv:2203.14415, eq. 6.) It equals the log-sum-exp of the student's
    logits, shared by all targets, minus its mean logit under P; and that mean is one product with the mean
    prototype under P. So no (views x B, K) matrix of the student is ever held. Computed in float32.

    Args:
        student: (V, B, D) vectors whose products with the prototypes are the student's logits.
        prototypes: (K, D).
        targets: (T, B, K) probabilities; no gradient reaches them.
        weights: (T, V) of each pair.
    """
    views, images, _ = student.shape
    with torch.autocast(student.device.type, enabled=False):
        student, prototypes, targets = student.float(), prototypes.float(), targets.detach().float()
        normaliser, _ = logsumexp_of_products(student.flatten(0, 1), prototypes, 1 / temperature)
        expected = (targets.flatten(0, 1) @ prototypes).view(*targets.shape[:2], -1)  # (T, B, D)
        agreement = torch.einsum("vbd,tbd->tvb", student, expected) / temperature
        return (weights.to(agreement) * (normaliser.view(views, images) - agreement).mean(2)).sum()
