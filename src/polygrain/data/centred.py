"""The one plain view of an image that features are measured on."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as pixels

from polygrain.data.photometric import Normalisation
from polygrain.data.sources import Images

RESIZE_TO_CROP = 256 / 224
LONGEST_ASPECT = 8  # of a longer image only the middle is looked at


def centred(
    image: Tensor,
    size: int,
    normalisation: Normalisation,
    resize: int | None = None,
    multiple: int | None = None,
    whole_at: int | None = None,
) -> Tensor:
    """Shorter side to `resize` (bicubic, antialiased), centre crop of `size`, normalised: (C, size, size) float32.

    Without `resize` the shorter side becomes 256/224 of the crop, as everywhere in the field, except that an image
    whose shorter side is the crop already stays as it is: small images are stored at the size they are used at.

    Args:
        image: (C, H, W) uint8.
        multiple: keep the image's own aspect: the longer side of the crop is as large a share of the image as the
            shorter one, rounded down to a multiple of this.
        whole_at: length of the shorter side of images of which the crop cuts nothing off; by default `size`. Of
            several sizes all show the same part where this is that of the first.
    """
    image = _middle(image, LONGEST_ASPECT)
    shorter = min(image.shape[-2:])
    if resize is None:
        resize = size if shorter == (whole_at or size) else round(size * RESIZE_TO_CROP)
    if shorter != resize:
        image = pixels.resize(image, [resize], interpolation=InterpolationMode.BICUBIC, antialias=True)
    crop = [size, size]
    if multiple is not None:
        crop = [size if side == resize else side * size // resize // multiple * multiple for side in image.shape[-2:]]
    image = pixels.center_crop(image, crop)
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in normalisation)
    return (image.float() / 255 - mean) / std


class Box(NamedTuple):
    """A rectangle in source-image pixels."""

    top: float
    left: float
    height: float
    width: float


def centred_box(
    height: int, width: int, size: int, resize: int | None = None, multiple: int | None = None
) -> tuple[Box, tuple[int, int]]:
    """What `centred` shows of an image of these sides, and the height and width that it shows it at."""
    shorter = min(height, width)
    sides = [min(side, LONGEST_ASPECT * shorter) for side in (height, width)]
    if resize is None:
        resize = size if shorter == size else round(size * RESIZE_TO_CROP)
    resized = [resize if side == shorter else int(resize * side / shorter) for side in sides]
    crop = [size, size]
    if multiple is not None:
        crop = [size if side == resize else side * size // resize // multiple * multiple for side in resized]
    starts, lengths = [], []
    for whole, kept, long, short in zip((height, width), sides, resized, crop, strict=True):
        scale = kept / long
        starts.append(round((whole - kept) / 2) + round((long - short) / 2) * scale)
        lengths.append(short * scale)
    return Box(*starts, *lengths), (crop[0], crop[1])


def _middle(image: Tensor, aspect: int) -> Tensor:
    """An image of at most this ratio of its sides, which else would grow beyond all bounds when it is resized."""
    height, width = image.shape[-2:]
    most = aspect * min(height, width)
    return image if max(height, width) <= most else pixels.center_crop(image, [min(height, most), min(width, most)])


def centred_batches(
    images: Images,
    positions: Sequence[int] | np.ndarray,
    size: int,
    normalisation: Normalisation,
    batch_size: int = 256,
) -> Iterator[Tensor]:
    """Plain views of the images at `positions`, in order, in batches (B, 3, size, size)."""
    for start in range(0, len(positions), batch_size):
        some = positions[start : start + batch_size]
        yield torch.stack([centred(images.decode(int(i)), size, normalisation) for i in some])
