"""How a detector is trained and what it finds."""

import itertools
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from polygrain.data.coco import CocoImages
from polygrain.data.coco_json import Annotations
from polygrain.evaluate.detection.examples import Example, Plain
from polygrain.evaluate.detection.scores import results
from polygrain.evaluate.loading import from_workers
from polygrain.evaluate.settings.detection import DetectionRecipe
from polygrain.parts.encoder import Encoder
from polygrain.parts.layer_decay import layer_groups

WARMUP_START = 1e-3  # of the learning rate


def falling(steps: int, *, warmup_steps: int, drops: Iterable[float]) -> Callable[[int], float]:
    """The factor of the learning rate at each step: a tenth after each drop, a share of all steps; before that a line
    from 0.001 to 1, over at most a tenth of the steps."""
    warmup = min(warmup_steps, steps // 10)
    after = [round(share * steps) for share in drops]

    def factor(step: int) -> float:
        whole: float = 0.1 ** sum(step >= drop for drop in after)
        return whole if step >= warmup else WARMUP_START + (1 - WARMUP_START) * step / warmup

    return factor


def train(
    model: nn.Module,
    encoder: Encoder,
    examples: Iterable[Any],
    recipe: DetectionRecipe,
    *,
    steps: int,
    device: str,
) -> list[float]:
    """AdamW on the sum of all losses of a detector, which holds the encoder; the sum at each step is returned.

    Args:
        examples: batches, each a list of `Example`.

    Raises:
        ValueError: when a loss is not finite.
    """
    groups = layer_groups(
        model,
        encoder,
        lr=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        layer_decay=recipe.layer_decay,
        decay_positions=True,  # as the official script does: it spares names that do not occur
    )
    optimizer = torch.optim.AdamW(groups)
    factor = falling(steps, warmup_steps=recipe.warmup_steps, drops=recipe.drops)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    history: list[float] = []
    model.train()
    quiet = not sys.stderr.isatty()
    for batch in tqdm(from_workers(examples), total=steps, desc="detector", unit="step", disable=quiet, leave=False):
        optimizer.zero_grad(set_to_none=True)
        losses = backward(model, batch, at_once=recipe.images_at_once, device=device)
        if wrong := [name for name, loss in losses.items() if not math.isfinite(loss)]:
            told = f"{wrong[0]} is {losses[wrong[0]]} at step {len(history)}"
            raise ValueError(f"{told}; lower --learning-rate from {recipe.learning_rate:g}")
        optimizer.step()
        schedule.step()
        history.append(sum(losses.values()))
    return history


def backward(model: nn.Module, batch: Sequence[Example], *, at_once: int, device: str) -> dict[str, float]:
    """Adds the gradients of a batch, of which so many images go through the detector at once; gives its losses.

    A detector's losses are means over the boxes drawn from the images of one pass, the same number from each as a rule.
    Each piece counts by its images: pieces of one size give the mean over pieces, as so many GPUs with a piece each
    would. That is the whole batch at once, but for BatchNorm, padding, and masks, which are means over objects.
    """
    sums: dict[str, float] = {}
    for start in range(0, len(batch), at_once):
        piece = batch[start : start + at_once]
        pixels = [image.to(device) for image, _ in piece]
        targets = [{name: part.to(device) for name, part in target.items()} for _, target in piece]
        share = len(piece) / len(batch)
        losses: dict[str, torch.Tensor] = model(pixels, targets)
        (share * torch.stack([*losses.values()]).sum()).backward()  # type: ignore[no-untyped-call]  # torch gives no types
        for name, loss in losses.items():
            sums[name] = sums.get(name, 0.0) + share * loss.item()
    return sums


@torch.no_grad()
def find(
    model: nn.Module, images: CocoImages, annotations: Annotations, *, workers: int, device: str
) -> list[dict[str, Any]]:
    """What a detector finds in all images, as COCO's result files have it.

    Args:
        annotations: whose labels the detector was trained with.
    """
    model.eval()
    loader: Any = DataLoader(Plain(images), batch_size=None, num_workers=workers)
    quiet = not sys.stderr.isatty()
    progress = tqdm(from_workers(loader), total=len(images), desc="images", unit="image", disable=quiet, leave=False)
    found = (
        results(annotations, image, model([pixels.to(device)])[0])
        for image, pixels in zip(images.ids, progress, strict=True)
    )
    return [*itertools.chain.from_iterable(found)]
