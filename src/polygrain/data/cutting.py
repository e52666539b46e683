"""The pixels of crops: a pure function of images and the numbers drawn for them, wherever the images are.

Each crop is computed from its own image and its own numbers alone, so a view does not depend on what else is in the
batch. Between a CPU and another device only resizing differs, by one level of 255 at most before colours are changed.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from polygrain.data import photometric
from polygrain.data.boxes import Box
from polygrain.data.draws import Draws, Flags, Numbers, hidden_patches, noise
from polygrain.data.photometric import Normalisation
from polygrain.data.randaugment import FILL, OPERATIONS, Operation, augment
from polygrain.views import Crops, View

CHUNK = 2**19  # numbers that a CPU core keeps at hand while it goes over them again and again

JITTER = (photometric.brightness, photometric.contrast, photometric.saturation, photometric.hue)
WITHOUT_COLOURS = JITTER[:2]  # what is drawn for the others changes nothing


def cut(images: Sequence[Tensor], draws: Sequence[Draws], normalisation: Normalisation) -> dict[str, list[View]]:
    """Cuts all crops of a batch of images.

    A view's box says where it was cut. What a strong view shows there may come from elsewhere: RandAugment turns,
    shears and moves the whole image before the cut.

    Args:
        images: B of them, uint8 (C, H, W), of any sizes, all on one device, all with as many channels.
        draws: what `draw` said of each, all for the same requests.

    Returns:
        By the name of the request one view for each of its crops.
    """
    pixels, channels = [_words(image) for image in images], len(images[0])
    fills = _fills(channels, normalisation)
    views: dict[str, list[View]] = {}
    first = 0
    for request in draws[0].requests:
        numbers = _crop_major([d.numbers for d in draws], slice(first, first + request.count))
        stack = torch.empty(request.count * len(images), channels, request.size, request.size, device=images[0].device)
        for i in range(len(stack)):
            stack[i] = _sample(pixels[i % len(images)], fills, numbers, i, request.size)[:channels]
        chunk = max(1, CHUNK // stack[0].numel()) if stack.is_cpu else len(stack)
        for start in range(0, len(stack), chunk):
            rows = slice(start, start + chunk)
            change_colours(stack[rows], Numbers._make(field[rows] for field in numbers))
        augment_late(stack, fills, numbers)
        _erase(stack, numbers.erased, draws, request.name)
        for start in range(0, len(stack), chunk):
            photometric.normalise(stack[start : start + chunk], normalisation)
        views[request.name] = _views(stack, numbers, draws, request)
        first += request.count
    return views


def _crop_major(numbers: Sequence[Numbers], crops: slice) -> Numbers:
    """Those of V crops of B images, (V * B, ...): crop 0 of all images first."""
    stacked = (np.stack([field[crops] for field in fields], axis=1) for fields in zip(*numbers, strict=True))
    return Numbers._make(field.reshape(-1, *field.shape[2:]) for field in stacked)


def _words(image: Tensor) -> list[Tensor]:
    """(C, H, W) as (H, W, 4): a machine word for each pixel, several for more than four channels."""
    if len(image) == 3:
        return [torch.stack([*image, image[0]], dim=2)]
    groups = [[*image[start : start + 4]] for start in range(0, len(image), 4)]
    return [torch.stack(group + group[-1:] * (4 - len(group)), dim=2) for group in groups]


def _fills(channels: int, normalisation: Normalisation) -> list[Sequence[int]]:
    """What lies outside an image, for each word of a pixel: the mean of the channels."""
    if channels == 3:
        return [FILL]
    means = [round(255 * mean) for mean in normalisation.mean] + [0, 0, 0]
    return [means[start : start + 4] for start in range(0, channels, 4)]


def _sample(words: Sequence[Tensor], fills: Sequence[Sequence[int]], numbers: Numbers, i: int, size: int) -> Tensor:
    """What crop i shows of its image, after RandAugment, in its final size: (4 words, size, size), values of bytes."""
    operations = [] if numbers.late[i] else operations_of(numbers, i)
    box = Box(*numbers.box[i].tolist())
    crops = [resize(augment(part, box, operations, fill), size) for part, fill in zip(words, fills, strict=True)]
    crop = crops[0] if len(crops) == 1 else torch.cat(crops)
    # mirroring first, as the authors of Mugs do, would only change the sign of magnitudes, which is random
    return crop.flip(2) if numbers.flipped[i] else crop


def operations_of(numbers: Numbers, i: int) -> list[Operation]:
    """RandAugment's of crop i, in order."""
    drawn = zip(numbers.operations[i], numbers.magnitudes[i], numbers.bicubic[i], strict=True)
    return [
        Operation(OPERATIONS[kind], float(magnitude), bool(bicubic)) for kind, magnitude, bicubic in drawn if kind >= 0
    ]


def resize(region: Tensor, size: int) -> Tensor:
    """Bicubic resizing of (h, w, 4) uint8 to (4, size, size), antialiased, with Pillow's values.

    Along the rows first and rounded, then along the columns (so did Pillow up to 12; 13 takes the cheaper order).
    """
    if not region.is_cpu:
        return resize_in_floats(region, size)
    return F.interpolate(_planes(region), size=(size, size), mode="bicubic", antialias=True)[0]


def resize_in_floats(region: Tensor, size: int) -> Tensor:
    """The same where there is no resizing of bytes: whole numbers 0..255, float32."""
    image = _planes(region)
    for shape in ((len(region), size), (size, size)):
        image = F.interpolate(image.float(), size=shape, mode="bicubic", antialias=True).round_().clamp_(0, 255)
    return image[0]


def _planes(region: Tensor) -> Tensor:
    return region.permute(2, 0, 1)[None]  # (1, 4, h, w)


def change_colours(stack: Tensor, numbers: Numbers) -> None:
    """Jitter, gray, blur and solarisation of crops (n, C, H, W) that hold whole numbers 0..255, in place."""
    strength = torch.from_numpy(numbers.jitter).float().to(stack.device)[:, :, None, None, None]  # (n, 4, 1, 1, 1)
    kinds = JITTER if stack.shape[1] == 3 else WITHOUT_COLOURS
    for place in range(len(JITTER)):
        comes = np.where(numbers.jittered, numbers.jitter_order[:, place], -1)
        for kind, change in enumerate(kinds):
            for part, rows in _chosen(stack, comes == kind):
                change(part, strength[rows, kind])
    for part, _ in _chosen(stack, numbers.gray & ~numbers.late):
        photometric.grayscale(part)
    radius = photometric.box_radius(numbers.blur)
    for reach in np.unique(np.floor(radius)):  # the narrower ones cost less
        for part, rows in _chosen(stack, (numbers.blur > 0) & (np.floor(radius) == reach)):
            photometric.gaussian_blur(part, radius[rows])
    for part, _ in _chosen(stack, numbers.solarised):
        photometric.solarise(part)


def augment_late(stack: Tensor, fills: Sequence[Sequence[int]], numbers: Numbers) -> None:
    """RandAugment of finished crops (n, C, H, W), in place, after which they may turn gray (InfoMin)."""
    size, channels = stack.shape[-1], stack.shape[1]
    for i in np.flatnonzero(numbers.late).tolist():
        if operations := operations_of(numbers, i):
            words = _words(photometric.as_bytes(stack[i]))
            parts = [augment(w, Box(0, 0, size, size), operations, f) for w, f in zip(words, fills, strict=True)]
            stack[i] = torch.cat([part.permute(2, 0, 1) for part in parts])[:channels]
    for part, _ in _chosen(stack, numbers.gray & numbers.late):
        photometric.grayscale(part)


def _chosen(stack: Tensor, choice: Flags) -> Iterator[tuple[Tensor, NDArray[np.intp]]]:
    """The chosen crops and their rows, if there are any; whatever is done to them is then in the stack."""
    rows = np.flatnonzero(choice)
    if not len(rows):
        return
    first, last = int(rows[0]), int(rows[-1])
    if last - first + 1 == len(rows):
        yield stack[first : last + 1], rows
        return
    part = stack.index_select(0, torch.from_numpy(rows).to(stack.device))
    yield part, rows
    for row, crop in zip(rows.tolist(), part, strict=True):  # on a CPU several times faster than index_copy_
        stack[row] = crop


def _erase(stack: Tensor, erased: NDArray[np.int64], draws: Sequence[Draws], name: str) -> None:
    """Noise in a box of some crops; its unit is the full range of values, since it comes before normalisation.

    So Mugs does in all its recipes (official code, prefetching loader): after normalisation the noise has neither
    mean 0 nor deviation 1.
    """
    for i in np.flatnonzero(erased[:, 2]).tolist():
        top, left, height, width = erased[i].tolist()
        crop, image = divmod(i, len(draws))
        values = torch.from_numpy(noise(draws[image].key, name, crop, (stack.shape[1], height, width)))
        stack[i, :, top : top + height, left : left + width] = values.to(stack.device) * 255


def _views(stack: Tensor, numbers: Numbers, draws: Sequence[Draws], request: Crops) -> list[View]:
    box, flipped, strong = (
        torch.from_numpy(field).to(stack.device) for field in (numbers.box, numbers.flipped, numbers.strong)
    )
    image = torch.tensor([d.key.image for d in draws], device=stack.device)
    fields = [field.chunk(request.count) for field in (stack, box.float(), flipped, strong)]
    return [
        View._make((*(field[crop] for field in fields), image, _hidden(draws, request, crop, stack.device)))
        for crop in range(request.count)
    ]


def _hidden(draws: Sequence[Draws], request: Crops, crop: int, device: torch.device) -> Tensor | None:
    """(B, N) which patches of a crop are not to be shown, if any may be."""
    if request.mask is None:
        return None
    return torch.from_numpy(np.stack([hidden_patches(d.key, request, crop) for d in draws])).to(device)
