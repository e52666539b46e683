"""One look at one image: can it be decoded, and what is odd about it."""

import hashlib
from enum import IntFlag
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from polygrain.data.decoding import ORIENTATION_TAG, Undecodable
from polygrain.data.escaping import one_line
from polygrain.data.images import Images
from polygrain.data.opening import open_picture
from polygrain.data.troubles import trouble_of

TINY_SIDE = 32  # px; a shorter side below it
LONGEST_ASPECT = 4  # longer side to shorter
CONSTANT_SPREAD = 4  # of 255; no channel varies by more
GRID = 9
FINEST = 512  # px, what sides are thinned to before they are shrunk
GRAY_MODES = ("1", "L", "LA", "La", "I", "F")


class Oddity(IntFlag):
    """What is worth knowing of an image that can be decoded."""

    CONSTANT = 1
    TINY = 2
    EXTREME_ASPECT = 4
    SIXTEEN_BIT = 8
    CMYK = 16
    SEVERAL_PICTURES = 32
    ROTATED = 64
    ALPHA = 128
    PALETTE = 256
    GRAY = 512
    ODD_CHANNELS = 1024


class Look(NamedTuple):
    """What one look found."""

    oddities: int  # of Oddity
    height: int  # as decoded; 0 where it cannot be
    width: int
    size: int  # bytes of the file, 0 where there is none
    pixels: int  # a hash of shape and pixels, 64 bits
    across: int  # two perceptual hashes, 64 bits each, see `difference_hashes`
    down: int
    trouble: str = ""  # one of TROUBLES
    reason: str = ""


def look(images: Images, i: int, hashes: bool = True) -> Look:
    """Reads and decodes image i as training does.

    Args:
        hashes: whether to compute what duplicates are found by.
    """
    data = None
    try:
        data = images.encoded(i)
        pixels = images.load(i) if data is None else images.decoded(data)
    except Undecodable as error:
        size = 0 if data is None else len(data)
        return Look(0, 0, 0, size, 0, 0, 0, trouble_of(error, data), one_line(str(error)))
    oddities = _of_pixels(pixels) | (Oddity(0) if data is None else _of_file(data))
    digest, across, down = (_digest(pixels), *difference_hashes(pixels)) if hashes else (0, 0, 0)
    height, width = pixels.shape[1:]
    return Look(int(oddities), height, width, 0 if data is None else len(data), digest, across, down)


def difference_hashes(pixels: Tensor) -> tuple[int, int]:
    """Twice 64 bits of an image (C, H, W) shrunk to 9 x 9 grays: whether each exceeds the one to its left; above it."""
    steps = [max(1, side // FINEST) for side in pixels.shape[1:]]
    values = pixels.numpy()[:, :: steps[0], :: steps[1]]
    rows, columns = _cuts(values.shape[1], GRID), _cuts(values.shape[2], GRID)
    sums = np.stack([values[:, start:end].sum(1, dtype=np.uint32).sum(0) / (end - start) for start, end in rows])
    places = np.stack([sums[:, start:end].mean(1) for start, end in columns], 1)  # (9, 9)
    across, down = np.diff(places, axis=1)[:-1] > 0, np.diff(places, axis=0)[:, :-1] > 0  # (8, 8)
    return _number(across), _number(down)


def _number(bits: NDArray[np.bool_]) -> int:
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def _cuts(length: int, parts: int) -> list[tuple[int, int]]:
    """Start and end of each part of a side; parts of a side that is too short share places."""
    return [
        (part * length // parts, max((part + 1) * length // parts, part * length // parts + 1)) for part in range(parts)
    ]


def _digest(pixels: Tensor) -> int:
    digest = hashlib.sha256(str(tuple(pixels.shape)).encode())  # many processors have instructions for it
    digest.update(pixels.numpy().data)
    return int.from_bytes(digest.digest()[:8], "big")


def _of_pixels(pixels: Tensor) -> Oddity:
    height, width = pixels.shape[1:]
    found = Oddity(0)
    if min(height, width) < TINY_SIDE:
        found |= Oddity.TINY
    if max(height, width) > LONGEST_ASPECT * min(height, width):
        found |= Oddity.EXTREME_ASPECT
    if _constant(pixels[:, ::16, ::16]) and _constant(pixels):
        found |= Oddity.CONSTANT
    return found


def _constant(pixels: Tensor) -> bool:
    flat = pixels.flatten(1)
    spread = flat.amax(1).int() - flat.amin(1).int()
    return bool((spread <= CONSTANT_SPREAD).all())


def _of_file(data: bytes) -> Oddity:
    """Of a file that was decoded before, so that its size is within bounds."""
    try:
        with open_picture(data) as image:
            return _of_header(image, data)
    except Exception:  # no picture of one of Pillow's kinds, but of bands: an array, a TIFF of many channels
        return Oddity.ODD_CHANNELS


def _of_header(image: Image.Image, data: bytes) -> Oddity:
    facts = {
        Oddity.SIXTEEN_BIT: image.mode.startswith("I;16") or ";16" in str(getattr(image, "tile", "")),
        Oddity.CMYK: image.mode == "CMYK",
        Oddity.SEVERAL_PICTURES: _several(image),
        Oddity.ROTATED: _orientation(image, data) not in (0, 1),
        Oddity.ALPHA: image.has_transparency_data,
        Oddity.PALETTE: image.mode in ("P", "PA"),
        Oddity.GRAY: image.mode in GRAY_MODES or image.mode.startswith("I;16"),
    }
    return Oddity(sum(oddity for oddity, there in facts.items() if there))


def _several(image: Image.Image) -> bool:
    if image.format != "TIFF":
        return bool(getattr(image, "is_animated", False))
    try:
        image.seek(1)
    except EOFError:
        return False
    image.seek(0)
    return True


def _orientation(image: Image.Image, data: bytes) -> int:
    if image.format == "PNG" and b"eXIf" not in data and b"Raw profile type exif" not in data:
        return 1  # Pillow would decode all of it to look
    try:
        return int(image.getexif().get(ORIENTATION_TAG, 1))
    except Exception:  # broken metadata do not spoil the pixels
        return 1
