"""Self-distillation over prototypes."""

from typing import Any

import torch
from torch import Tensor

from polygrain.losses.streaming import CHUNK, LogSumExp


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
    student: Tensor, weight_v: Tensor, weight_g: Tensor, targets: Tensor, weights: Tensor, temperature: float
) -> Tensor:
    """Cross-entropy - sum_c P[c] log softmax(student . prototypes / T)[c], averaged over images, weighted over pairs.

    (DINO, arXiv:2104.14294, eq. 2; Mugs, arXiv:2203.14415, sec. 3.3.) It equals the log-sum-exp of the student's
    logits, shared by all targets, minus its mean logit under P; and that mean is one product with the mean
    prototype under P. So neither the student's (V B, K) logits nor the prototypes themselves are ever held whole.
    Computed in float32.

    Args:
        student: (V, B, D) vectors whose products with the prototypes are the student's logits.
        weight_v: (K, D) directions of the prototypes weight_g[c] weight_v[c] / ||weight_v[c]||.
        weight_g: (K, 1) their lengths.
        targets: (T, B, K) probabilities; no gradient reaches them.
        weights: (T, V) of each pair.
    """
    views, images, _ = student.shape
    with torch.autocast(student.device.type, enabled=False):
        student = student.float() / temperature
        normaliser, expected = _LogSumExpAndMeans.apply(
            student.flatten(0, 1), weight_v.float(), weight_g.float(), targets.detach().float().flatten(0, 1)
        )
        agreement = torch.einsum("vbd,tbd->tvb", student, expected.view(len(targets), images, -1))
        cross_entropy = (normaliser.view(views, images) - agreement).mean(2)  # (T, V)
        loss: Tensor = (weights.to(agreement) * cross_entropy).sum()
        return loss


def assignment_cross_entropies(
    student: Tensor, weight_v: Tensor, weight_g: Tensor, targets: Tensor, temperature: float
) -> Tensor:
    """The same cross-entropy of single vectors, each with a target of its own: (R,), float32.

    Args:
        student: (R, D).
        targets: (R, K) probabilities; no gradient reaches them.
    """
    with torch.autocast(student.device.type, enabled=False):
        student = student.float() / temperature
        normaliser, expected = _LogSumExpAndMeans.apply(
            student, weight_v.float(), weight_g.float(), targets.detach().float()
        )
        entropies: Tensor = normaliser - (student * expected).sum(1)
        return entropies


class _LogSumExpAndMeans(torch.autograd.Function):
    """log sum_c exp(query . prototype_c) of R queries, and the mean prototypes under S rows of probabilities.

    Backward meets the softmax of the queries once more, chunk by chunk, and goes through the weight normalisation
    while a chunk is at hand, so that the gradient of `weight_v` is the only (K, D) it makes.
    """

    @staticmethod
    def forward(
        ctx: Any, queries: Tensor, weight_v: Tensor, weight_g: Tensor, probabilities: Tensor
    ) -> tuple[Tensor, Tensor]:
        running = LogSumExp(queries)
        means = queries.new_zeros(len(probabilities), queries.shape[1])  # (S, D)
        for start in range(0, len(weight_v), CHUNK):
            chunk = slice(start, start + CHUNK)
            rows = weight_v[chunk] * (weight_g[chunk] / _lengths(weight_v[chunk]))
            running.add(rows)
            means.addmm_(probabilities[:, chunk], rows)
        value = running.value()
        ctx.save_for_backward(queries, weight_v, weight_g, probabilities, value, running.mean())
        return value, means

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        to_value, to_means = gradients  # (R,), (S, D)
        queries, weight_v, weight_g, probabilities, value, slope = ctx.saved_tensors
        to_v, to_g = torch.empty_like(weight_v), torch.empty_like(weight_g)
        weighted = queries * to_value[:, None]
        for start in range(0, len(weight_v), CHUNK):
            chunk = slice(start, start + CHUNK)
            lengths = _lengths(weight_v[chunk])  # (chunk, 1)
            directions = weight_v[chunk] / lengths
            softmax = ((directions * weight_g[chunk]) @ queries.T).sub_(value).exp_()  # (chunk, R)
            to_rows = (softmax @ weighted).addmm_(probabilities[:, chunk].T, to_means)  # (chunk, D)
            along = (to_rows * directions).sum(1, keepdim=True)
            to_g[chunk] = along
            torch.mul(to_rows.addcmul_(directions, along, value=-1), weight_g[chunk] / lengths, out=to_v[chunk])
        return slope * to_value[:, None], to_v, to_g, None


def _lengths(vectors: Tensor) -> Tensor:
    """(K, 1)"""
    lengths: Tensor = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    return lengths
