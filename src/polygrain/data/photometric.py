"""Colour and sharpness of finished crops, many at a time, each with its own strength: Pillow's values, on any device.

A stack of crops is float32 (n, C, H, W) that holds whole numbers 0..255; every function rounds where Pillow rounds.
Hue, saturation and gray need C = 3; the others take any number of channels.
Each step is one IEEE operation on each number, and sums are of whole numbers, so a crop comes out the same to the last
bit whatever other crops are in the stack and wherever it is computed. All functions work in place.
"""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

BLUR_PASSES = 3


class Normalisation(NamedTuple):
    """Mean and standard deviation of each channel, for pixels in 0..1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def normalise(stack: Tensor, normalisation: Normalisation) -> None:
    mean, std = (torch.tensor(v, dtype=torch.float64).view(-1, 1, 1) for v in normalisation)
    stack.mul_((1 / (255 * std)).to(stack)).sub_((mean / std).to(stack))


def luminance(stack: Tensor) -> Tensor:
    """(n, 1, H, W) ITU-R 601 in Pillow's fixed point; exact, since all sums stay below 2^24."""
    red, green, blue = _channels(stack)
    return (red * 19595).add_(green * 38470).add_(blue * 7471).add_(32768).mul_(2**-16).floor_()


def lightness(stack: Tensor) -> Tensor:
    """(n, 1, H, W) luminance of colours; of other channels their mean, rounded."""
    if stack.shape[1] == 3:
        return luminance(stack)
    return stack.sum(1, keepdim=True).div_(stack.shape[1]).add_(0.5).floor_()


def _channels(stack: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return stack[:, 0:1], stack[:, 1:2], stack[:, 2:3]


def blend(base: Tensor | float, values: Tensor, factor: Tensor | float) -> Tensor:
    """`values` drawn to or pushed from `base`: factor 0 gives `base`, 1 leaves them, cut to 0..255 and rounded down."""
    return values.sub_(base).mul_(factor).add_(base).clamp_(0, 255).floor_()


def as_bytes(values: Tensor) -> Tensor:
    """Whole numbers 0..255 as uint8; torch converts floats to int16, and those to bytes, far faster than at once."""
    return values.short().byte()


def brightness(stack: Tensor, factor: Tensor) -> None:
    """Args: factor: (n, 1, 1, 1), as for the next three."""
    blend(0.0, stack, factor)


def contrast(stack: Tensor, factor: Tensor) -> None:
    light = lightness(stack)  # (n, 1, H, W)
    mean = light.sum(3).sum(2, dtype=torch.float64) / light[0].numel()  # rows are exact in float32, (n, 1)
    blend((mean + 0.5).floor().to(stack.dtype)[..., None, None], stack, factor)


def saturation(stack: Tensor, factor: Tensor) -> None:
    blend(luminance(stack), stack, factor)


def hue(stack: Tensor, turns: Tensor) -> None:
    """Turns the hue in HSV of 8 bits a channel, as torchvision does to a Pillow image."""
    hues, saturations, value = _to_hsv(stack)
    hues.add_((turns * 255).trunc_())  # whole steps of 1/256 turn, though a turn is 255 units: as Pillow and NumPy
    hues.sub_((hues / 256).floor_().mul_(256)).mul_(6 / 255)  # 0..6, red at 0, green at 2, blue at 4
    saturations.div_(255)
    # how far each channel falls below the largest one, as a share of what the saturation allows
    stack[:, 0:1] = (hues - 3).abs_().neg_().add_(2)
    stack[:, 1:2] = (hues - 2).abs_().sub_(1)
    stack[:, 2:3] = hues.sub_(4).abs_().sub_(1)
    stack.clamp_(0, 1).mul_(saturations).neg_().add_(1).mul_(value).add_(0.5).floor_()


def _to_hsv(stack: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Hue, saturation and value, whole numbers 0..255, each (n, 1, H, W)."""
    red, green, blue = _channels(stack)
    value = torch.maximum(torch.maximum(red, green), blue)
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    saturations = (chroma / value.clamp(min=1)).mul_(255).floor_()
    below = (value - stack).div_(chroma.clamp_(min=1))  # 0 for the largest channel, 1 for the smallest
    red, green, blue = _channels(below)
    is_red = (red * 1).eq_(0)
    is_green = (green * 1).eq_(0)
    # on the sides of the colour circle: red's is blue - green, green's 2 + red - blue, blue's 4 + green - red
    blue_side = (green - red).add_(4)
    green_side = (red - blue).add_(2)
    hues = (green_side.sub_(blue_side)).mul_(is_green).add_(blue_side)
    hues.add_((blue - green).sub_(hues).mul_(is_red))
    hues.div_(6).add_(1)
    hues.sub_(hues.floor()).mul_(255).floor_()
    return hues, saturations, value


def grayscale(stack: Tensor) -> None:
    stack.copy_(luminance(stack).expand_as(stack))


def solarise(stack: Tensor) -> None:
    """Values of 128 and above become 255 minus themselves, which is the smaller of the two."""
    torch.minimum(stack, 255 - stack, out=stack)


def box_radius(sigma: NDArray[np.float64]) -> NDArray[np.float64]:
    """Radius of the box that, applied three times, resembles a Gaussian (Gwosdek et al. 2011, eq. 7, 11, 14)."""
    variance = sigma**2 / BLUR_PASSES
    whole = np.floor((np.sqrt(12 * variance + 1) - 1) / 2)
    part = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance) / (6 * (variance - (whole + 1) ** 2))
    return np.asarray(whole + part)


def gaussian_blur(stack: Tensor, radius: NDArray[np.float64]) -> None:
    """Pillow's Gaussian blur: three boxes along the rows, then three along the columns, rounded after each.

    Args:
        radius: (n,) of the boxes; the pixels at distance floor(radius) + 1 count in part.
    """
    whole = np.floor(radius)
    weight = np.floor(2**24 / (2 * radius + 1)) / 2**24  # Pillow's fixed point
    edge = np.floor((1 - (2 * whole + 1) * weight) * 2**23) / 2**24
    reach = int(whole.max()) + 1
    taps = [np.where(k <= whole, weight, np.where(k == whole + 1, edge, 0.0)) for k in range(reach + 1)]
    weights = [torch.tensor(tap, dtype=stack.dtype).to(stack.device).view(-1, 1, 1, 1) for tap in taps]
    for axis in (3, 2):
        for _ in range(BLUR_PASSES):
            _box_blur(stack, weights, axis)


def _box_blur(stack: Tensor, weights: list[Tensor], axis: int) -> None:
    reach, length = len(weights) - 1, stack.shape[axis]
    padded = F.pad(stack, (reach, reach, 0, 0) if axis == 3 else (0, 0, reach, reach), mode="replicate")
    stack.mul_(weights[0])
    for k in range(1, reach + 1):
        sides = padded.narrow(axis, reach - k, length) + padded.narrow(axis, reach + k, length)
        stack.add_(sides.mul_(weights[k]))
    stack.add_(0.5).floor_()
