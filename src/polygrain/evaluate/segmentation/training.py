"""Training on random crops, every pixel judged."""

import sys
from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from polygrain.evaluate.segmentation.dense import Dense, Heads, enlarged, not_finite
from polygrain.evaluate.segmentation.sets import VOID

WARMUP_START = 1e-6  # of the learning rate


def polynomial(steps: int, *, power: float, warmup_steps: int, least: float = 0.0) -> Callable[[int], float]:
    """The factor of the learning rate at each step: (1 - step / steps) ** power, not below `least`; in the warm-up that
    value times a line from 1e-6 to 1 (as mmsegmentation's "poly")."""

    def factor(step: int) -> float:
        whole: float = (1 - least) * max(0.0, 1 - step / steps) ** power + least
        if step >= warmup_steps:
            return whole
        return whole * (WARMUP_START + (1 - WARMUP_START) * step / warmup_steps)

    return factor


def pixel_loss(logits: Tensor, classes: Tensor) -> Tensor:
    """Mean cross-entropy of all pixels, logits (B, C, rows, columns) enlarged to classes (B, H, W); void ones add 0, so
    a crop that is half void weighs half.

    (mmsegmentation's `CrossEntropyLoss`, with `avg_non_ignore` off as in the runs of VICRegL, iBOT and Mugs; DINOv3's.)
    """
    total = F.cross_entropy(enlarged(logits, classes.shape[-2:]), classes, ignore_index=VOID, reduction="sum")
    return total / classes.numel()


def heads_loss(dense: Dense, heads: Heads) -> Callable[[Tensor, Tensor], Tensor]:
    """Sum of the losses of several heads on one frozen map: each gets its own gradient."""

    def loss(pixels: Tensor, classes: Tensor) -> Tensor:
        maps = dense(pixels)
        return torch.stack([pixel_loss(head(maps), classes) for head in heads]).sum()

    return loss


def optimise(
    loss_of: Callable[[Tensor, Tensor], Tensor],
    crops: Iterable[tuple[Tensor, Tensor]],
    optimizer: torch.optim.Optimizer,
    factors: list[Callable[[int], float]],
    *,
    steps: int,
    device: str,
    features_of: Callable[[Tensor], Tensor],
    name_of: Callable[[int], str],
) -> None:
    """One step for each batch.

    Args:
        factors: of the learning rate of each group, by step.
        features_of: what the backbone as it was handed in makes of pixels, (B, ...); asked when the loss is not finite.
        name_of: the name of the image that a crop is cut from; all batches are of one size.

    Raises:
        ValueError: when the loss is not finite; names an image whose features are not.
    """
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factors)
    quiet = not sys.stderr.isatty()
    for step, (pixels, classes) in enumerate(tqdm(crops, total=steps, desc="segmentation", disable=quiet, leave=False)):
        loss = loss_of(pixels.to(device), classes.to(device))
        if not torch.isfinite(loss):
            spoilt = ~torch.isfinite(features_of(pixels.to(device)).flatten(1)).all(1)  # (B,)
            if spoilt.any():
                raise not_finite(name_of(step * len(pixels) + int(spoilt.nonzero()[0])))
            raise ValueError(f"the loss is {loss.item()} at step {step}; lower the learning rate")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call] # torch gives it no types
        optimizer.step()
        schedule.step()


def head_optimizer(
    heads: Iterable[nn.Module], learning_rates: Iterable[float], *, name: str, weight_decay: float
) -> torch.optim.Optimizer:
    """AdamW, or SGD with momentum 0.9, one learning rate for each head."""
    groups = [{"params": list(head.parameters()), "lr": rate} for head, rate in zip(heads, learning_rates, strict=True)]
    if name == "sgd":
        return torch.optim.SGD(groups, momentum=0.9, weight_decay=weight_decay)
    return torch.optim.AdamW(groups, weight_decay=weight_decay)
