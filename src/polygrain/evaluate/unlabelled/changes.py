"""Changes of an image, one at a time, each of its own kind and strength.

All take whole numbers 0..255, float32 (n, C, S, S), and the numbers drawn for each image, and give as many. What is
random about an image depends on the seed, the change and the image alone.
"""

import io
import zlib
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from polygrain.data import photometric
from polygrain.data.boxes import resized_crop_boxes
from polygrain.data.cutting import JITTER, WITHOUT_COLOURS

Randoms = Sequence[np.random.Generator]
Change = Callable[[Tensor, Randoms], Tensor]

ZOOM, RATIO = (0.25, 0.8), (3 / 4, 4 / 3)  # share of the area, width over height
STRENGTHS = (0.4, 0.4, 0.4, 0.1)  # of brightness, contrast, saturation and hue, as in MoCo v2 (arXiv:2003.04297)
BLUR = 0.01  # sigma, in sides of the image
NOISE = 20.0  # standard deviation, of 255
QUALITY = 15  # of JPEG
HIDDEN = 0.25  # share of the area


def draws(seed: int, change: str, images: Sequence[int]) -> Randoms:
    """A generator of numbers for each image."""
    kind = zlib.crc32(change.encode())
    return [np.random.Generator(np.random.Philox(key=[seed, kind], counter=[0, image, 0, 0])) for image in images]


def flip(stack: Tensor, randoms: Randoms) -> Tensor:
    """Mirrored left-right."""
    return stack.flip(3)


def zoom(stack: Tensor, randoms: Randoms) -> Tensor:
    """A random part of 25 % to 80 % of the area, brought back to the size of the whole."""
    side = stack.shape[-1]
    zoomed = torch.empty_like(stack)
    for i, random in enumerate(randoms):
        u = random.random((1, 22))
        ((top, left, height, width),) = resized_crop_boxes(
            u[:, :10], u[:, 10:20], u[:, 20:], np.array([ZOOM]), np.array([RATIO]), side, side
        ).tolist()
        part = stack[i : i + 1, :, top : top + height, left : left + width]
        zoomed[i : i + 1] = F.interpolate(part, size=(side, side), mode="bicubic", antialias=True)
    return zoomed.round_().clamp_(0, 255)


def jitter(stack: Tensor, randoms: Randoms) -> Tensor:
    """Brightness, contrast, saturation and hue, in this order; without colours the first two."""
    changed = stack.clone()
    u = np.stack([random.random(4) for random in randoms])
    factors = torch.from_numpy(np.array([1, 1, 1, 0]) + (2 * u - 1) * STRENGTHS).float()  # (n, 4)
    for kind, change in enumerate(JITTER if stack.shape[1] == 3 else WITHOUT_COLOURS):
        change(changed, factors[:, kind, None, None, None])
    return changed


def gray(stack: Tensor, randoms: Randoms) -> Tensor:
    """All colours taken away."""
    changed = stack.clone()
    photometric.grayscale(changed)
    return changed


def blur(stack: Tensor, randoms: Randoms) -> Tensor:
    """A Gaussian of 1 % of the side."""
    changed = stack.clone()
    photometric.gaussian_blur(changed, photometric.box_radius(np.full(len(stack), BLUR * stack.shape[-1])))
    return changed


def noise(stack: Tensor, randoms: Randoms) -> Tensor:
    """Independent Gaussian noise of 20/255 in each pixel."""
    drawn = [random.standard_normal(stack.shape[1:], dtype=np.float32) for random in randoms]
    return (stack + NOISE * torch.from_numpy(np.stack(drawn))).round_().clamp_(0, 255)


def turn(stack: Tensor, randoms: Randoms) -> Tensor:
    """A quarter turn to the left or to the right."""
    left = [bool(random.random() < 0.5) for random in randoms]
    return torch.stack([image.rot90(1 if to else -1, (1, 2)) for image, to in zip(stack, left, strict=True)])


def jpeg(stack: Tensor, randoms: Randoms) -> Tensor:
    """Stored as a JPEG of quality 15."""
    return torch.stack([_stored(image) for image in stack])


def hide(stack: Tensor, randoms: Randoms) -> Tensor:
    """A square of a quarter of the area turned gray."""
    changed, side = stack.clone(), round(stack.shape[-1] * HIDDEN**0.5)
    for image, random in zip(changed, randoms, strict=True):
        top, left = random.integers(0, stack.shape[-1] - side + 1, 2).tolist()
        image[:, top : top + side, left : left + side] = 128
    return changed


def _stored(image: Tensor) -> Tensor:
    file = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).byte().numpy()).save(file, "JPEG", quality=QUALITY)
    return torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1).float()


CHANGES: dict[str, Change] = {
    "flip": flip,
    "zoom": zoom,
    "colour jitter": jitter,
    "gray": gray,
    "blur": blur,
    "noise": noise,
    "quarter turn": turn,
    "JPEG": jpeg,
    "hidden square": hide,
}
OF_COLOURS = ("gray", "JPEG")  # not for images of other than three channels


def usable(channels: int) -> dict[str, Change]:
    """The changes that make sense for images of so many channels."""
    return {name: change for name, change in CHANGES.items() if channels == 3 or name not in OF_COLOURS}


def roll(stack: Tensor, randoms: Randoms) -> Tensor:
    """Shifted round and round by a random way in both axes, so that content comes to lie anywhere."""
    by = [random.integers(0, stack.shape[-1], 2).tolist() for random in randoms]
    return torch.stack([image.roll(shift, (1, 2)) for image, shift in zip(stack, by, strict=True)])
