"""RandAugment's operations with Pillow's values, computed for no more of an image than a crop will show.

Images are uint8 (H, W, 4), so that a pixel is one machine word (as in Pillow): red, green, blue, and one more that
means nothing; or four channels that are no colours, for the operations that `usable` names. The operations and their
magnitudes are timm's "increasing" set (RandAugment, arXiv:1909.13719; timm's `auto_augment`). Most are tables of 256
values, looked up in the crop's box alone; three of the tables depend on the whole image.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from polygrain.data.affine import Matrix, needed, transform
from polygrain.data.boxes import Box, Part
from polygrain.data.photometric import as_bytes, blend

FILL = (124, 116, 104)  # ImageNet's mean, laid where a geometric operation shows what lies outside the image

STRIP = 2**15  # pixels that a CPU core works on at a time, so that what lies between the steps stays at hand

OPERATIONS = (
    "AutoContrast",
    "Equalize",
    "Invert",
    "Rotate",
    "Posterize",
    "Solarize",
    "SolarizeAdd",
    "Color",
    "Contrast",
    "Brightness",
    "Sharpness",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
)

WITHOUT_COLOURS = ("Rotate", "Brightness", "Sharpness", "ShearX", "ShearY", "TranslateX", "TranslateY")


def usable(channels: int) -> tuple[str, ...]:
    """The operations that make sense for images of so many channels.

    Those that belong to eight-bit colours are left out of others: levels thrown away or turned round (Posterize,
    Solarize, Invert ...), histograms reshaped (AutoContrast, Equalize), and what mixes red, green and blue.
    """
    return OPERATIONS if channels == 3 else WITHOUT_COLOURS


class Operation(NamedTuple):
    """One of OPERATIONS, and how strong it is."""

    name: str
    magnitude: float  # 0..10, negative for the other direction
    bicubic: bool


def augment(image: Tensor, box: Box, operations: Sequence[Operation], fill: Sequence[int] = FILL) -> Tensor:
    """What `box` shows of the whole image (H, W, 4) after all operations, (h, w, 4)."""
    height, width = image.shape[:2]
    boxes = [box]  # what the last operation must give, what the one before must give for that, and so on
    for operation in reversed(operations):
        boxes.append(needs(boxes[-1], operation, height, width))
    part = Part(image, Box(0, 0, height, width), height, width)
    for operation, wanted in zip(operations, boxes[-2::-1], strict=True):
        part = Part(apply(part, wanted, operation, fill), wanted, height, width)
    return part.cut(box)


def needs(box: Box, operation: Operation, height: int, width: int) -> Box:
    """What an operation must be given of an image to say what `box` shows of its result."""
    if operation.name in OF_THE_WHOLE:
        return Box(0, 0, height, width)
    if operation.name in MATRICES:
        return needed(box, MATRICES[operation.name](operation.magnitude, height, width), height, width)
    margin = 1 if operation.name == "Sharpness" else 0
    top, left = max(box.top - margin, 0), max(box.left - margin, 0)
    return Box(top, left, min(box.bottom + margin, height) - top, min(box.right + margin, width) - left)


def apply(image: Part, box: Box, operation: Operation, fill: Sequence[int] = FILL) -> Tensor:
    """What `box` shows of the whole image after one operation, (h, w, 4)."""
    within = prepare(image, operation, fill)
    if not image.pixels.is_cpu:
        return within(box)
    rows = max(1, STRIP // box.width)
    tops = range(box.top, box.bottom, rows)
    strips = [within(Box(top, box.left, min(rows, box.bottom - top), box.width)) for top in tops]
    return torch.cat(strips) if len(strips) > 1 else strips[0]


def prepare(image: Part, operation: Operation, fill: Sequence[int] = FILL) -> Callable[[Box], Tensor]:
    """The operation as a function from a box to what that shows."""
    name, magnitude = operation.name, operation.magnitude
    if name in TABLES:
        table = TABLES[name](image.pixels, magnitude)
        return lambda box: _look_up(image.cut(box), table)
    if name == "Color":
        return lambda box: _color(image.cut(box), _factor(magnitude))
    if name == "Sharpness":
        return lambda box: _sharpness(image, box, needs(box, operation, image.height, image.width), magnitude)
    matrix = MATRICES[name](magnitude, image.height, image.width)
    return lambda box: transform(image, box, matrix, bicubic=operation.bicubic, fill=fill)


def _factor(magnitude: float) -> float:
    """Of Color, Contrast, Brightness and Sharpness: 0.1 to 1.9, 1 changes nothing."""
    return max(0.1, 1 + magnitude / 10 * 0.9)


def _look_up(region: Tensor, table: Tensor) -> Tensor:
    """Args: table: (256,) for all channels or (3, 256)."""
    index = region.int().flatten(1)  # (h, w * 4)
    if table.ndim == 2:
        start = torch.tensor([0, 256, 512, 512], dtype=torch.int32, device=region.device)
        index.add_(start.repeat(region.shape[1]))
    return table.flatten().index_select(0, index.flatten()).view(region.shape)


def _luminance(region: Tensor) -> Tensor:
    """(h, w) int32, of whole pixels; see `photometric.luminance`."""
    words = region.view(torch.int32)[..., 0]
    red, green, blue = words & 255, (words >> 8) & 255, (words >> 16) & 255
    return red.mul_(19595).add_(green.mul_(38470)).add_(blue.mul_(7471)).add_(32768).bitwise_right_shift_(16)


def _color(region: Tensor, factor: float) -> Tensor:
    gray = (_luminance(region) * 0x010101)[..., None].view(torch.uint8)  # the same in red, green and blue
    return as_bytes(blend(gray.float(), region.float(), factor))


def _sharpness(image: Part, box: Box, around: Box, magnitude: float) -> Tensor:
    """Drawn to, or pushed from, a weighted mean of the 3x3 pixels around; the image's outermost pixels stay."""
    values = image.cut(around).float()
    rows = values[:-2] + values[1:-1] + values[2:]
    square = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
    smooth = values.clone()
    smooth[1:-1, 1:-1] = (square + 4 * values[1:-1, 1:-1]).div_(13).add_(0.5).floor_()
    top, left = box.top - around.top, box.left - around.left
    inner = slice(top, top + box.height), slice(left, left + box.width)
    return as_bytes(blend(smooth[inner], values[inner], _factor(magnitude)))


def _ramp(image: Tensor) -> Tensor:
    return torch.arange(256, dtype=torch.float32, device=image.device)


def _histograms(image: Tensor) -> Tensor:
    """(3, 256) how often each value occurs."""
    return torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in image.unbind(2)[:3]])


def _auto_contrast(image: Tensor, magnitude: float) -> Tensor:
    """Each channel stretched so that its darkest value becomes 0 and its brightest 255."""
    values = _ramp(image).double()
    present = _histograms(image) > 0
    low = torch.where(present, values, 255.0).amin(1, keepdim=True)  # (3, 1)
    high = torch.where(present, values, 0.0).amax(1, keepdim=True)
    scale = torch.full_like(low, 255) / (high - low)  # a true division: of a plain number torch takes the reciprocal
    stretched = (values * scale - low * scale).trunc().clamp(0, 255)
    return torch.where(high > low, stretched, values).byte()


def _equalize(image: Tensor, magnitude: float) -> Tensor:
    """Each channel's histogram made as flat as whole steps allow."""
    counts = _histograms(image)
    values = torch.arange(256, device=image.device)
    last = torch.where(counts > 0, values, 0).amax(1, keepdim=True)  # (3, 1)
    step = (counts.sum(1, keepdim=True) - counts.gather(1, last)) // 255
    below = counts.cumsum(1) - counts
    levels = ((step // 2 + below) // step.clamp(min=1)).clamp(max=255)
    return torch.where(step > 0, levels, values).byte()


def _invert(image: Tensor, magnitude: float) -> Tensor:
    return (255 - _ramp(image)).byte()


def _posterize(image: Tensor, magnitude: float) -> Tensor:
    """The highest bits, 4 at magnitude 0; at 10 none, which is black (older Pillow; newer ones refuse)."""
    bits = 4 - int(abs(magnitude) / 10 * 4)
    return _ramp(image).byte().bitwise_and(256 - 2 ** (8 - bits))


def _solarize(image: Tensor, magnitude: float) -> Tensor:
    """Values from a threshold on, 256 at magnitude 0 and 0 at 10, become 255 minus themselves."""
    values, threshold = _ramp(image), 256 - int(abs(magnitude) / 10 * 256)
    return torch.where(values < threshold, values, 255 - values).byte()


def _solarize_add(image: Tensor, magnitude: float) -> Tensor:
    """Up to 110 is added to values below 128."""
    values = _ramp(image)
    return torch.where(values < 128, values + int(abs(magnitude) / 10 * 110), values).byte()


def _contrast(image: Tensor, magnitude: float) -> Tensor:
    rows = max(1, STRIP // image.shape[1])
    sums = [_luminance(image[top : top + rows]).sum() for top in range(0, len(image), rows)]
    mean = (torch.stack(sums).sum() / image[..., 0].numel() + 0.5).floor()
    return blend(mean, _ramp(image), _factor(magnitude)).byte()


def _brightness(image: Tensor, magnitude: float) -> Tensor:
    return blend(0.0, _ramp(image), _factor(magnitude)).byte()


def _rotation(magnitude: float, height: int, width: int) -> Matrix:
    """Up to 30 degrees about the centre."""
    angle = -math.radians(magnitude / 10 * 30)
    cosine, sine = math.cos(angle), math.sin(angle)
    x, y = width / 2, height / 2
    return cosine, sine, x - cosine * x - sine * y, -sine, cosine, y + sine * x - cosine * y


OF_THE_WHOLE = ("AutoContrast", "Equalize", "Contrast")  # their tables depend on all of the image

TABLES: dict[str, Callable[[Tensor, float], Tensor]] = {
    "AutoContrast": _auto_contrast,
    "Equalize": _equalize,
    "Invert": _invert,
    "Posterize": _posterize,
    "Solarize": _solarize,
    "SolarizeAdd": _solarize_add,
    "Contrast": _contrast,
    "Brightness": _brightness,
}

MATRICES: dict[str, Callable[[float, int, int], Matrix]] = {
    "Rotate": _rotation,
    "ShearX": lambda magnitude, height, width: (1, magnitude / 10 * 0.3, 0, 0, 1, 0),
    "ShearY": lambda magnitude, height, width: (1, 0, 0, magnitude / 10 * 0.3, 1, 0),
    "TranslateX": lambda magnitude, height, width: (1, 0, magnitude / 10 * 0.45 * width, 0, 1, 0),
    "TranslateY": lambda magnitude, height, width: (1, 0, 0, 0, 1, magnitude / 10 * 0.45 * height),
}
