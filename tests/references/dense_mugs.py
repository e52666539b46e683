"""The losses of Mugs one pair of views at a time, with every matrix written out: slow, and plain to read.

Own code after the equations of the paper (arXiv:2203.14415) and the order of things in the authors' code: each pair
takes its own softmax over all negatives or prototypes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def mean_over_pairs(losses: dict[tuple[int, int], Tensor], large: int) -> Tensor:
    """Half the mean over pairs with a large student view, half the mean over those with a small one."""
    large_pairs = [loss for (_, view), loss in losses.items() if view < large]
    small_pairs = [loss for (_, view), loss in losses.items() if view >= large]
    means = [torch.stack(pairs).mean() for pairs in (large_pairs, small_pairs) if pairs]
    return torch.stack(means).mean()


def dense_info_nce(predictions: Tensor, targets: Tensor, negatives: Tensor, temperature: float, large: int) -> Tensor:
    losses = {}
    for t, target in enumerate(targets):
        for v, prediction in enumerate(predictions):
            if t != v:
                positive = (prediction * target).sum(1, keepdim=True)  # (B, 1)
                logits = torch.cat([positive, prediction @ negatives.T], 1) / temperature  # (B, 1 + K)
                losses[t, v] = F.cross_entropy(logits, logits.new_zeros(len(logits), dtype=torch.long))
    return mean_over_pairs(losses, large)


def dense_distillation(student: Tensor, prototypes: Tensor, targets: Tensor, temperature: float, large: int) -> Tensor:
    logits = student @ prototypes.T / temperature  # (V, B, K)
    losses = {}
    for t, target in enumerate(targets):
        for v, logit in enumerate(logits):
            if t != v:
                losses[t, v] = -(target * logit.log_softmax(-1)).sum(-1).mean()
    return mean_over_pairs(losses, large)
