"""Linear classifiers for many learning rates, trained together."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from polygrain.evaluate.settings.heads import HeadRecipe

MOMENTUM, TRUST = 0.9, 1e-3
CHUNK = 1024  # images tested at once
BATCH_NORM_EPSILON = 1e-6  # MAE's


class Heads(NamedTuple):
    """One linear classifier for each learning rate, behind a batch norm they share or none."""

    weight: Tensor  # (H, C, D)
    bias: Tensor  # (H, C)
    norm: nn.Module = nn.Identity()  # without state

    def logits(self, features: Tensor) -> Tensor:
        """Features (B, D) to (H, B, C)."""
        rows = self.norm(features).expand(len(self.weight), -1, -1)
        return torch.baddbmm(self.bias[:, None], rows, self.weight.transpose(1, 2))

    def one(self, head: int) -> "Heads":
        return self._replace(weight=self.weight[head : head + 1], bias=self.bias[head : head + 1])

    def top1(self, features: Tensor, labels: Tensor) -> list[float | None]:
        """Share of right answers of each head; None where its answers are no numbers."""
        right, finite = [], []  # (H, B) each
        for rows, truth in zip(torch.split(features, CHUNK), torch.split(labels, CHUNK), strict=True):
            logits = self.logits(rows)
            right.append(logits.argmax(-1) == truth)
            finite.append(logits.isfinite().all(-1))
        shares: list[float] = torch.cat(right, dim=1).double().mean(dim=1).tolist()
        sound: list[bool] = torch.cat(finite, dim=1).all(dim=1).tolist()
        return [share if fine else None for share, fine in zip(shares, sound, strict=True)]


class Learner:
    """Heads of one readout while they are trained.

    SGD with momentum on the cross-entropy, as DINO's classifier (arXiv:2104.14294, official `eval_linear.py`) unless
    the recipe says otherwise: weights from N(0, 0.01), biases 0, learning rate times batch / 256, half a cosine. All
    start alike and see the same batches, so each is what it would be if trained alone.

    Args:
        dim: D of the features.
        random: draws the weights.
    """

    def __init__(self, dim: int, classes: int, recipe: HeadRecipe, random: torch.Generator, device: str) -> None:
        self.recipe = recipe
        count = len(recipe.learning_rates)
        weight = 0.01 * torch.randn(classes, dim, generator=random)
        norm = nn.BatchNorm1d(dim, eps=BATCH_NORM_EPSILON, affine=False) if recipe.batch_norm else nn.Identity()
        self.heads = Heads(
            weight.expand(count, -1, -1).clone().to(device),
            torch.zeros(count, classes, device=device),
            norm.to(device).eval(),
        )
        self._speed = Heads(torch.zeros_like(self.heads.weight), torch.zeros_like(self.heads.bias))
        self._peak = torch.tensor(recipe.learning_rates, device=device) * recipe.head_batch_size / 256  # (H,)

    @torch.no_grad()
    def step(self, features: Tensor, labels: Tensor, epoch: float) -> None:
        """One step on the mean cross-entropy of features (B, D) with labels (B,).

        Args:
            epoch: how many are done, with what is done of this one.
        """
        heads, speed = self.heads, self._speed
        rate = self.rates(epoch if self.recipe.by_step else math.floor(epoch))
        heads.norm.train(len(features) > 1)  # one image has no statistics
        rows = heads.norm(features)
        heads.norm.eval()
        by_logits = Heads(heads.weight, heads.bias).logits(rows).softmax(dim=-1)  # (H, B, C)
        by_logits[:, torch.arange(len(labels), device=labels.device), labels] -= 1
        by_logits /= len(labels)  # the gradient of one head by its logits is (softmax - one-hot) / B
        if self.recipe.optimizer == "sgd" and not self.recipe.weight_decay:
            speed.weight.mul_(MOMENTUM).baddbmm_(by_logits.transpose(1, 2), rows.expand(len(by_logits), -1, -1))
            speed.bias.mul_(MOMENTUM).add_(by_logits.sum(dim=1))
        else:
            by_weight = by_logits.transpose(1, 2) @ rows + self.recipe.weight_decay * heads.weight
            speed.weight.mul_(MOMENTUM).add_(self._trusted(by_weight))
            speed.bias.mul_(MOMENTUM).add_(by_logits.sum(dim=1) + self.recipe.weight_decay * heads.bias)
        heads.weight.addcmul_(speed.weight, rate[:, None, None], value=-1)
        heads.bias.addcmul_(speed.bias, rate[:, None], value=-1)

    def rates(self, epoch: float) -> Tensor:
        """(H,) a rise over the warm-up, then half a cosine."""
        recipe = self.recipe
        if epoch < recipe.warmup_epochs:
            return self._peak * epoch / recipe.warmup_epochs
        done = (epoch - recipe.warmup_epochs) / (recipe.epochs - recipe.warmup_epochs)
        return recipe.min_lr + (self._peak - recipe.min_lr) * 0.5 * (1 + math.cos(math.pi * done))

    def _trusted(self, gradient: Tensor) -> Tensor:
        """With LARS the gradient of each head's weights is scaled to their length (MAE, `util/lars.py`)."""
        if self.recipe.optimizer == "sgd":
            return gradient
        lengths = torch.linalg.matrix_norm(self.heads.weight)
        steps = torch.linalg.matrix_norm(gradient)
        ratio = torch.where((lengths > 0) & (steps > 0), TRUST * lengths / steps, 1.0)
        return gradient * ratio[:, None, None]


def train_heads(features: Tensor, labels: Tensor, *, classes: int, recipe: HeadRecipe, seed: int) -> Heads:
    """Trains on features in memory, one head for each learning rate.

    Args:
        features: (N, D) float32.
        labels: (N,) long.
    """
    random = torch.Generator().manual_seed(seed)
    learner = Learner(features.shape[1], classes, recipe, random, str(features.device))
    steps = math.ceil(len(features) / recipe.head_batch_size)
    for epoch in range(recipe.epochs):
        order = torch.randperm(len(features), generator=random).to(features.device)
        for step, rows in enumerate(torch.split(order, recipe.head_batch_size)):
            learner.step(features[rows], labels[rows], epoch + step / steps)
    return learner.heads
