"""From a picture of any size to the class of each of its pixels: as a whole, or window by window."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as pixels_of

from polygrain.data.photometric import Normalisation
from polygrain.evaluate.features import default_workers
from polygrain.evaluate.loading import from_workers
from polygrain.evaluate.segmentation.dense import enlarged
from polygrain.evaluate.segmentation.sets import Truth

LogitsOf = Callable[[Tensor], Tensor]  # (B, C, H, W) of sides that the stride divides, to (B, K, rows, columns)
LONGEST = 4  # times the short side, as 2048 to 512 in the papers


class Whole(NamedTuple):
    """One image to be segmented."""

    pixels: Tensor  # (1, C, h, w) normalised
    truth: Tensor  # (H, W)


class WholeImages(Dataset[Whole]):
    """Images with the short side brought to `size`, and their masks as they are."""

    def __init__(self, truth: Truth, size: int, normalisation: Normalisation) -> None:
        self.truth, self.size, self.normalisation = truth, size, normalisation

    def __len__(self) -> int:
        return len(self.truth)

    def __getitem__(self, i: int) -> Whole:
        image, truth = self.truth.pair(i)
        small = resized(image, self.size)
        return Whole(normalised(small, self.normalisation)[None], truth)


def whole_images(truth: Truth, size: int, normalisation: Normalisation, workers: int | None) -> Iterator[Whole]:
    """One after another, decoded by `workers` processes; None for one less than the cores, at most 8."""
    loader: Any = DataLoader(
        WholeImages(truth, size, normalisation),
        batch_size=None,
        num_workers=default_workers() if workers is None else workers,
    )
    yield from from_workers(loader)


def resized(image: Tensor, size: int) -> Tensor:
    """Short side to `size`, bilinear, antialiased; the longer one to four times that at most."""
    short, long = sorted(image.shape[-2:])
    scale = min(size / short, LONGEST * size / long)
    sides = [max(1, round(side * scale)) for side in image.shape[-2:]]
    small: Tensor = pixels_of.resize(image, sides, interpolation=InterpolationMode.BILINEAR, antialias=True)
    return small


def padded(pixels: Tensor, multiple: int) -> Tensor:
    """Pictures (B, C, H, W) with zeros at the right and below, so that `multiple` divides their sides."""
    rows, columns = (-side % multiple for side in pixels.shape[2:])
    return F.pad(pixels, (0, columns, 0, rows))


def normalised(image: Tensor, normalisation: Normalisation) -> Tensor:
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in normalisation)
    return (image.float() / 255 - mean) / std


def at_full_size(logits_of: LogitsOf, pixels: Tensor, multiple: int) -> Tensor:
    """Logits (B, K, H, W) of pictures of any size: padded at the right and below for the backbone, and cut again."""
    filled = padded(pixels, multiple)
    full = enlarged(logits_of(filled), filled.shape[-2:])
    return full[..., : pixels.shape[2], : pixels.shape[3]]


def starts(length: int, window: int, stride: int) -> list[int]:
    """Where windows begin: each `stride` behind the last one, the final one moved back to end with the picture."""
    if length <= window:
        return [0]
    return [*range(0, length - window, stride), length - window]


def sliding(logits_of: LogitsOf, pixels: Tensor, multiple: int, *, window: int, stride: int) -> Tensor:
    """Logits (B, K, H, W), in each pixel the mean of those of the windows that hold it.

    Args:
        window: side of a window; 0 for the picture as a whole.
    """
    height, width = pixels.shape[2:]
    if not window or max(height, width) <= window:
        return at_full_size(logits_of, pixels, multiple)
    total: Tensor | None = None
    covered = pixels.new_zeros(height, width)
    for top in starts(height, window, stride):
        for left in starts(width, window, stride):
            rows, columns = slice(top, top + window), slice(left, left + window)
            logits = at_full_size(logits_of, pixels[..., rows, columns], multiple)
            if total is None:
                total = logits.new_zeros(*logits.shape[:2], height, width)
            total[..., rows, columns] += logits
            covered[rows, columns] += 1
    assert total is not None
    return total / covered


@torch.no_grad()
def segmented(
    logits_of: LogitsOf,
    image: Whole,
    multiple: int,
    *,
    window: int,
    stride: int,
    heads: int = 1,
    device: str = "cpu",
) -> Sequence[Tensor]:
    """The most likely class of each pixel of the mask (H, W) by each head: logits enlarged first, then the largest."""
    logits = sliding(logits_of, image.pixels.to(device), multiple, window=window, stride=stride)
    parts = logits[0].chunk(heads)  # (C, h, w) each
    size = image.truth.shape
    return [(part if part.shape[1:] == size else enlarged(part[None], size)[0]).argmax(0).cpu() for part in parts]
