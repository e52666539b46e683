"""Rectangles of pixels, and where random ones lie: the rules of RandomResizedCrop and RandomErasing."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

TRIES = 10
PIECE = 64 / 85  # of the sides of a cell, in a grid of 3 x 3 over 255 pixels
ERASED_AREA = (0.02, 1 / 3)  # share of the crop
ERASED_RATIO = (0.3, 1 / 0.3)  # height over width

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class Box(NamedTuple):
    """A rectangle of whole pixels."""

    top: int
    left: int
    height: int
    width: int

    @property
    def bottom(self) -> int:
        return self.top + self.height

    @property
    def right(self) -> int:
        return self.left + self.width


class Part(NamedTuple):
    """The part of an image that lies within a box; all boxes are in pixels of the whole image."""

    pixels: Tensor  # (h, w, 4) uint8
    box: Box
    height: int  # of the whole image
    width: int

    def cut(self, box: Box) -> Tensor:
        """The pixels of a smaller box."""
        top, left = box.top - self.box.top, box.left - self.box.left
        return self.pixels[top : top + box.height, left : left + box.width]


def resized_crop_boxes(
    area: Floats, ratio: Floats, place: Floats, scale: Floats, ratios: Floats, height: int, width: int
) -> Integers:
    """Boxes with a random share of the image and a random, log-uniform ratio of width to height (torchvision's rule).

    Of ten tries the first that fits counts; if none does, the largest centred box with a permitted ratio.

    Args:
        area, ratio: (V, 10) uniform numbers in [0, 1), one for each try.
        place: (V, 2) uniform numbers for top and left.
        scale, ratios: (V, 2) bounds of the share and of the ratio.

    Returns:
        (V, 4) top, left, height, width.
    """
    target = height * width * _between(area, scale)
    aspect = np.exp(_between(ratio, np.log(ratios)))
    widths, heights = np.rint(np.sqrt(target * aspect)), np.rint(np.sqrt(target / aspect))
    fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
    low, high = ratios.T
    fallback_width = np.where(width / height > high, np.rint(height * high), width)
    fallback_height = np.where(width / height < low, np.rint(width / low), height)
    found = fits.any(axis=1)
    w = np.where(found, _first(widths, fits), fallback_width)
    h = np.where(found, _first(heights, fits), fallback_height)
    top = np.where(found, np.floor(place[:, 0] * (height - h + 1)), (height - h) // 2)
    left = np.where(found, np.floor(place[:, 1] * (width - w + 1)), (width - w) // 2)
    return np.stack([top, left, h, w], axis=1).astype(np.int64)


def piece_boxes(whole: Integers, order: Integers, place: Floats) -> Integers:
    """Boxes of the pieces of a puzzle: each has 64/85 of the sides of its cell in a square grid (PIRL, InfoMin).

    Args:
        whole: (4,) the box that the grid divides.
        order: (V,) which cell each piece lies in, row after row.
        place: (V, 2) uniform numbers for top and left within the cell.

    Returns:
        (V, 4) top, left, height, width; rounded to whole pixels, within `whole`.
    """
    grid = math.isqrt(len(order))
    cells = np.stack(np.divmod(order, grid), axis=1)  # (V, 2) row, column
    starts, ends = cells * whole[2:] // grid, (cells + 1) * whole[2:] // grid
    piece = np.maximum(np.rint(whole[2:] / grid * PIECE), 1)
    corner = starts + np.floor(place * (np.maximum(ends - starts - piece, 0) + 1))
    return np.concatenate([whole[:2] + corner, np.broadcast_to(piece, corner.shape)], axis=1).astype(np.int64)


def erased_boxes(area: Floats, ratio: Floats, place: Floats, size: Integers) -> Integers:
    """Boxes within square crops of side `size` (V,), smaller than them (timm's rule); height 0 where ten tries fail.

    Args:
        area, ratio, place: uniform numbers as above.

    Returns:
        (V, 4) top, left, height, width.
    """
    target = (size**2)[:, None] * _between(area, np.array([ERASED_AREA]))
    aspect = np.exp(_between(ratio, np.log([ERASED_RATIO])))
    heights, widths = np.rint(np.sqrt(target * aspect)), np.rint(np.sqrt(target / aspect))
    fits = (heights < size[:, None]) & (widths < size[:, None])
    found = fits.any(axis=1)
    h, w = _first(heights, fits) * found, _first(widths, fits) * found
    top = np.floor(place[:, 0] * (size - h + 1))
    left = np.floor(place[:, 1] * (size - w + 1))
    return np.stack([top, left, h, w], axis=1).astype(np.int64)


def _between(uniform: Floats, bounds: Floats) -> Floats:
    return bounds[:, :1] + uniform * (bounds[:, 1:] - bounds[:, :1])


def _first(values: Floats, fits: NDArray[np.bool_]) -> Floats:
    """(V,) of each row the value of the first try that fits."""
    return np.take_along_axis(values, fits.argmax(axis=1)[:, None], axis=1)[:, 0]
