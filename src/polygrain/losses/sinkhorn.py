"""Assigning a batch to prototypes in equal parts, and predicting the assignments."""

import torch
from torch import Tensor

from polygrain import distributed

LEAST_EPSILON = 0.025  # exp(-2 / epsilon), the smallest entry for cosines, is still a number in float32


@torch.no_grad()
def sinkhorn(scores: Tensor, epsilon: float, iterations: int = 3) -> Tensor:
    """Codes that spread the images of all ranks over the prototypes in about equal parts, each image adding up to 1.

    Q = exp(scores / epsilon); then, in turn, prototypes get a mass of 1/K each and images 1/N each (SwAV,
    arXiv:2006.09882, sec. 3.1; Cuturi, arXiv:1306.0895). Ranks may hold different numbers of images. Computed in
    float32 from the largest score of all downwards, which changes nothing else.

    Args:
        scores: (n, K) of this rank's images.

    Returns:
        (n, K) float32.
    """
    with torch.autocast(scores.device.type, enabled=False):
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
        prototypes = scores.shape[1]
        images = distributed.total(scores.new_tensor(len(scores)))
        highest = distributed.gather(scores.max()[None]).max()
        codes = ((scores - highest) / epsilon).exp()
        codes /= distributed.total(codes.sum())
        for _ in range(iterations):
            codes /= distributed.total(codes.sum(0)) * prototypes
            codes /= codes.sum(1, keepdim=True) * images
        return codes * images


def swapped_prediction(scores: Tensor, codes: Tensor, weights: Tensor, temperature: float) -> Tensor:
    """Cross-entropy - sum_k q_a[k] log softmax(s_v / T)[k], averaged over images, weighted over pairs of views.

    (SwAV, arXiv:2006.09882, eq. 2.)

    Args:
        scores: (V, B, K) of all views.
        codes: (A, B, K) of the views that assign; no gradient reaches them.
        weights: (A, V) of each pair.
    """
    with torch.autocast(scores.device.type, enabled=False):
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
        logarithms = (scores / temperature).log_softmax(-1)
        cross_entropy = -torch.einsum("abk,vbk->av", codes.detach(), logarithms) / scores.shape[1]
        return (weights.to(cross_entropy) * cross_entropy).sum()
