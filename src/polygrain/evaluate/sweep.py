"""Linear classifiers for many learning rates, trained together on features in memory."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

MOMENTUM = 0.9


class Heads(NamedTuple):
    """One linear classifier for each learning rate."""

    weight: Tensor  # (H, C, D)
    bias: Tensor  # (H, C)

    def logits(self, features: Tensor) -> Tensor:
        """Features (B, D) to (H, B, C)."""
        rows = features.expand(len(self.weight), -1, -1)
        return torch.baddbmm(self.bias[:, None], rows, self.weight.transpose(1, 2))


def train_heads(
    features: Tensor,
    labels: Tensor,
    *,
    classes: int,
    learning_rates: Sequence[float],
    epochs: int,
    batch_size: int,
    seed: int,
) -> Heads:
    """SGD with momentum 0.9 and no weight decay on the cross-entropy, one head for each learning rate.

    DINO's classifier (arXiv:2104.14294, official `eval_linear.py`): weights from N(0, 0.01), biases 0, learning rate
    scaled by batch_size / 256, cosine to 0 by epoch. All heads start alike and see the same batches, so each is what
    it would be if trained alone.

    Args:
        features: (N, D) float32.
        labels: (N,) long.
    """
    random = torch.Generator().manual_seed(seed)
    weight = 0.01 * torch.randn(classes, features.shape[1], generator=random)
    heads = Heads(
        weight.expand(len(learning_rates), -1, -1).clone().to(features.device),
        torch.zeros(len(learning_rates), classes, device=features.device),
    )
    speed = Heads(torch.zeros_like(heads.weight), torch.zeros_like(heads.bias))
    peak = torch.tensor(learning_rates, device=features.device) * batch_size / 256  # (H,)
    for epoch in range(epochs):
        rate = peak * 0.5 * (1 + math.cos(math.pi * epoch / epochs))
        order = torch.randperm(len(features), generator=random).to(features.device)
        for rows in torch.split(order, batch_size):
            _step(heads, speed, features[rows], labels[rows], rate)
    return heads


def _step(heads: Heads, speed: Heads, features: Tensor, labels: Tensor, rate: Tensor) -> None:
    """speed <- momentum speed + gradient; head <- head - rate speed. The gradient of the mean cross-entropy of one
    head by its logits is (softmax - one-hot) / B."""
    by_logits = heads.logits(features).softmax(dim=-1)  # (H, B, C)
    by_logits[:, torch.arange(len(labels), device=labels.device), labels] -= 1
    by_logits /= len(labels)
    rows = features.expand(len(by_logits), -1, -1)
    speed.weight.mul_(MOMENTUM).baddbmm_(by_logits.transpose(1, 2), rows)
    speed.bias.mul_(MOMENTUM).add_(by_logits.sum(dim=1))
    heads.weight.addcmul_(speed.weight, rate[:, None, None], value=-1)
    heads.bias.addcmul_(speed.bias, rate[:, None], value=-1)
