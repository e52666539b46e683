"""Linear segmentation: what one patch vector knows of the pixels under it."""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from polygrain.evaluate.metrics import Scores, confusion_matrix, segmentation_scores


class Segmented(NamedTuple):
    """Patch vectors and the masks of the same images, seen whole (no crop)."""

    patches: Tensor  # (n, N, D) row-major
    masks: Tensor  # (n, H, W) class ids
    grid: tuple[int, int]  # rows, columns of the patches


def segmentation_probe(
    train: Segmented,
    val: Segmented,
    *,
    classes: int,
    ignore: int | None = None,
    steps: int = 500,
    batch_size: int = 32,
    learning_rate: float = 1e-2,
    weight_decay: float = 1e-3,
    seed: int = 0,
) -> Scores:
    """Mean IoU and pixel accuracy on `val` of a BatchNorm and a linear layer trained on the patches of `train`.

    Args:
        ignore: class id of pixels that neither train nor count.
        batch_size: images per step.
    """
    head = train_segmentation_head(
        train,
        classes=classes,
        ignore=ignore,
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        seed=seed,
    )
    confusion = torch.zeros(classes, classes, dtype=torch.long, device=val.masks.device)
    for patches, masks in zip(torch.split(val.patches, batch_size), torch.split(val.masks, batch_size), strict=True):
        predicted = segment(head, patches, val.grid, (masks.shape[-2], masks.shape[-1]))
        confusion += confusion_matrix(predicted, masks, classes, ignore=ignore)
    return segmentation_scores(confusion)


def train_segmentation_head(
    train: Segmented,
    *,
    classes: int,
    ignore: int | None,
    steps: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    seed: int,
) -> nn.Sequential:
    """AdamW with a cosine to 0 on the cross-entropy of all pixels, each judged by the logits of its patch.

    That is the cross-entropy between a patch's logits and the shares of the classes among its pixels, so pixels are
    counted once, before the first step.
    """
    shares = patch_shares(train.masks, train.grid, classes, ignore=ignore)  # (n, N, C)
    linear = nn.Linear(train.patches.shape[2], classes)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    head = nn.Sequential(nn.BatchNorm1d(train.patches.shape[2]), linear).to(train.patches.device)
    optimizer = torch.optim.AdamW(head.parameters(), lr=learning_rate, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for rows in itertools.islice(shuffled(len(shares), batch_size, seed), steps):
        logits = head(train.patches[rows].flatten(0, 1))  # (B N, C)
        wanted = shares[rows].flatten(0, 1)
        loss = -(wanted * logits.log_softmax(dim=1)).sum() / wanted.sum().clamp_min(1e-6)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return head.eval()


def shuffled(count: int, batch_size: int, seed: int) -> Iterator[Tensor]:
    """Batches of positions, each epoch in another order, without end."""
    random = torch.Generator().manual_seed(seed)
    while True:
        yield from torch.split(torch.randperm(count, generator=random), batch_size)


def patch_shares(masks: Tensor, grid: tuple[int, int], classes: int, *, ignore: int | None = None) -> Tensor:
    """Share of each class among the pixels under each patch (n, N, C); ignored pixels belong to none.

    Args:
        masks: (n, H, W), whose sides the grid divides.

    Raises:
        ValueError: when a mask holds a class that is not in [0, classes) and is not ignored.
    """
    rows, columns = grid
    high, wide = masks.shape[1] // rows, masks.shape[2] // columns
    cells = masks.long().reshape(-1, rows, high, columns, wide)
    cells = cells.transpose(2, 3).flatten(3).flatten(1, 2)  # (n, N, high * wide)
    counted = torch.ones_like(cells, dtype=torch.float32) if ignore is None else (cells != ignore).float()
    if (outside := ((cells < 0) | (cells >= classes)) & (counted > 0)).any():
        raise ValueError(
            f"a mask holds class {int(cells[outside][0])}; with {classes} classes it must be below {classes}"
        )
    kinds = cells.clamp(0, classes - 1)
    shares = torch.zeros(*cells.shape[:2], classes, device=masks.device)
    return shares.scatter_add_(2, kinds, counted) / (high * wide)


@torch.no_grad()
def segment(head: nn.Sequential, patches: Tensor, grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Classes of all pixels (n, H, W): logits of the patches (n, N, D), enlarged bilinearly, then the largest."""
    logits: Tensor = head(patches.flatten(0, 1))  # (n N, C)
    maps = logits.view(len(patches), *grid, -1).permute(0, 3, 1, 2)  # (n, C, rows, columns)
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False).argmax(dim=1)
