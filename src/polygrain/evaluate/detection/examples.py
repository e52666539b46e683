"""Images and their objects as a detector is trained on them and tested with them."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from polygrain.data.coco import CocoImages, Truth

Example = tuple[Tensor, dict[str, Tensor]]  # (3, H, W) in [0, 1]; boxes, labels and masks of its objects
CROP_SIDES = (400, 500, 600)  # of the short side before a crop
CROP = (384, 600)  # least and largest side of it
JITTER = (0.1, 2.0)  # of the size that just fits the square


class Examples(Dataset[Example]):
    """Training images, mirrored at even odds; the draws of an image depend on seed, epoch and image alone.

    Args:
        crop: half of them are resized and cut first (DETR, arXiv:2005.12872, official `datasets/coco.py`).
        jitter: all become squares of this side, see `jittered`.
    """

    def __init__(self, images: CocoImages, *, crop: bool, jitter: int | None = None, seed: int) -> None:
        self.images = images
        self.crop = crop
        self.jitter = jitter
        self.seed = seed

    def __getitem__(self, place: tuple[int, int]) -> Example:
        epoch, position = place
        random = np.random.default_rng([self.seed, epoch, position])
        pixels, truth = self.images.pixels(position).float() / 255, self.images.truth(position)
        if random.random() < 0.5:
            pixels, truth = mirrored(pixels, truth)
        if self.crop and random.random() < 0.5:
            pixels, truth = resized(pixels, truth, int(random.choice(CROP_SIDES)))
            pixels, truth = cut(pixels, truth, random)
        if self.jitter is not None:
            pixels, truth = jittered(pixels, truth, self.jitter, random)
        return pixels, truth._asdict()


class Plain(Dataset[Tensor]):
    """Test images as they are, (3, H, W) in [0, 1]."""

    def __init__(self, images: CocoImages) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, position: int) -> Tensor:
        return self.images.pixels(position).float() / 255


def batches(
    examples: Examples, positions: Sequence[int], *, steps: int, images_per_step: int, workers: int
) -> DataLoader[Example]:
    """So many batches, as lists; each epoch in another order, without a gap between epochs."""
    places = _places(positions, examples.seed)
    order = [[next(places) for _ in range(images_per_step)] for _ in range(steps)]
    return DataLoader(examples, batch_sampler=order, num_workers=workers, collate_fn=list)


def mirrored(pixels: Tensor, truth: Truth) -> tuple[Tensor, Truth]:
    """Left and right changed."""
    left, top, right, bottom = truth.boxes.unbind(1)
    wide = pixels.shape[2]
    boxes = torch.stack([wide - right, top, wide - left, bottom], 1)
    return pixels.flip(2), Truth(boxes, truth.labels, truth.masks.flip(2))


def resized(pixels: Tensor, truth: Truth, short: int, *, antialias: bool = False) -> tuple[Tensor, Truth]:
    """The short side brought to a length."""
    high, wide = pixels.shape[1:]
    factor = short / min(high, wide)
    size = [round(high * factor), round(wide * factor)]
    large = F.interpolate(pixels[None], size, mode="bilinear", align_corners=False, antialias=antialias)[0]
    masks = F.interpolate(truth.masks[:, None], size)[:, 0] if len(truth.masks) else truth.masks.new_zeros(0, *size)
    scale = torch.tensor([size[1] / wide, size[0] / high] * 2)
    return large, Truth(truth.boxes * scale, truth.labels, masks)


def cut(pixels: Tensor, truth: Truth, random: np.random.Generator) -> tuple[Tensor, Truth]:
    """A random rectangle of an image; objects of which nothing is left are gone."""
    sides = [int(random.integers(min(side, CROP[0]), min(side, CROP[1]) + 1)) for side in pixels.shape[1:]]
    return _part(pixels, truth, sides, random)


def jittered(pixels: Tensor, truth: Truth, side: int, random: np.random.Generator) -> tuple[Tensor, Truth]:
    """Large-scale jitter (arXiv:2012.07177): resized by 0.1 to 2, and what of it lies in a random square.

    Grey fills what is left of the square, on the right and below; objects without a pixel in it are gone.
    """
    factor = random.uniform(*JITTER) * side / max(pixels.shape[1:])
    short = max(1, round(min(pixels.shape[1:]) * factor))
    pixels, truth = resized(pixels, truth, short, antialias=True)
    pixels, truth = _part(pixels, truth, [min(side, whole) for whole in pixels.shape[1:]], random)
    there = (truth.masks > 0).flatten(1).any(1)
    missing = (0, side - pixels.shape[2], 0, side - pixels.shape[1])
    masks = F.pad(truth.masks[there], missing)
    return F.pad(pixels, missing, value=0.5), Truth(truth.boxes[there], truth.labels[there], masks)


def _part(pixels: Tensor, truth: Truth, sides: Sequence[int], random: np.random.Generator) -> tuple[Tensor, Truth]:
    """A rectangle of these sides at a random place."""
    top, left = (int(random.integers(0, whole - side + 1)) for whole, side in zip(pixels.shape[1:], sides, strict=True))
    high, wide = sides
    boxes = truth.boxes - torch.tensor([left, top, left, top])
    boxes = boxes.clamp(min=0).minimum(torch.tensor([wide, high, wide, high]))
    kept = (boxes[:, 2:] > boxes[:, :2]).all(1)
    masks = truth.masks[kept, top : top + high, left : left + wide]
    return pixels[:, top : top + high, left : left + wide], Truth(boxes[kept], truth.labels[kept], masks)


def _places(positions: Sequence[int], seed: int) -> Iterator[tuple[int, int]]:
    """Epoch and position, without end."""
    random, epoch = np.random.default_rng(seed), 0
    while True:
        yield from ((epoch, int(position)) for position in random.permutation(np.array(positions)))
        epoch += 1
