"""Linear segmentation on patch vectors that are there already: every patch judged by the classes of its pixels."""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from polygrain.evaluate.metrics import Scores, confusion_matrix, segmentation_scores
from polygrain.evaluate.segmentation.dense import OnMaps, as_map, enlarged


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
    head = train_patch_head(
        train.patches,
        patch_shares(train.masks, train.grid, classes, ignore=ignore),
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


def train_patch_head(
    patches: Sequence[Tensor] | Tensor,
    shares: Sequence[Tensor] | Tensor,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    seed: int,
    batch_norm: bool = True,
    device: str = "cpu",
) -> nn.Module:
    """AdamW with a cosine to 0 on the cross-entropy of all pixels, each judged by the logits of its patch.

    That is the cross-entropy between a patch's logits and the shares of the classes among its pixels, so pixels are
    counted once, before the first step. Weights start at 0.

    Args:
        patches: of each image (N, D); N may differ.
        shares: of each class among the pixels of each patch, (N, C) an image, or any multiple of them.
        batch_size: images per step.
    """
    dim, classes = patches[0].shape[1], shares[0].shape[1]
    linear = nn.Linear(dim, classes)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    head = nn.Sequential(nn.BatchNorm1d(dim) if batch_norm else nn.Identity(), linear).to(device)
    optimizer = torch.optim.AdamW(head.parameters(), lr=learning_rate, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for rows in itertools.islice(shuffled(len(shares), batch_size, seed), steps):
        logits = head(torch.cat([patches[i] for i in rows]).to(device))  # (all N, C)
        wanted = torch.cat([shares[i] for i in rows]).to(device)
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
    masks = masks.long()
    kept = torch.ones_like(masks, dtype=torch.bool) if ignore is None else masks != ignore
    if (outside := ((masks < 0) | (masks >= classes)) & kept).any():
        raise ValueError(
            f"a mask holds class {int(masks[outside][0])}; with {classes} classes it must be below {classes}"
        )
    height, width = masks.shape[1] // grid[0], masks.shape[2] // grid[1]
    counts = [
        class_counts(mask.masked_fill(~there, -1), grid, classes) for mask, there in zip(masks, kept, strict=True)
    ]
    return torch.stack(counts) / (height * width)


def class_counts(
    truth: Tensor, grid: tuple[int, int], classes: int, covered: tuple[float, float] | None = None
) -> Tensor:
    """Number of pixels of each class under each patch (N, C), float32.

    Args:
        truth: (H, W) class of each pixel; below 0 it counts nowhere.
        covered: rows and columns of the grid that the picture covers, where it does not cover all.
    """
    places = []
    for side, cells in zip(truth.shape, covered or grid, strict=True):
        middles = torch.arange(side, device=truth.device, dtype=torch.float64) + 0.5
        places.append((middles * (cells / side)).long())
    patch = places[0][:, None] * grid[1] + places[1]  # (H, W)
    kept = truth >= 0
    counts = torch.bincount(patch[kept] * classes + truth[kept].long(), minlength=grid[0] * grid[1] * classes)
    return counts.view(-1, classes).float()


@torch.no_grad()
def segment(head: nn.Module, patches: Tensor, grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Classes of all pixels (n, H, W): logits of the patches (n, N, D), enlarged bilinearly, then the largest."""
    return enlarged(OnMaps(head)(as_map(patches, grid)), size).argmax(dim=1)
