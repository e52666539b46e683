"""From the bytes of an image file to pixels: uint8, upright, complete; RGB, gray, or as many channels as asked for.

What the many kinds of files become in RGB (3, H, W), the usual case:

- JPEG, PNG, WebP, TIFF turned by their EXIF orientation are turned upright (broken EXIF is ignored).
- Grayscale gives three equal channels. 16 bits a channel are scaled, not clipped: grayscale is divided by 257 and
  rounded, 12-bit TIFF divided by 4095/255; of colours Pillow keeps the upper 8 bits, which differs by one at most.
- Palettes are looked up. Transparent parts are laid over white, the page most cut-outs were made for.
- CMYK, YCbCr and the like are converted by Pillow, without colour profiles.
- Of an animation or a multi-page file, the first picture.
- A JPEG of more than 16 million pixels is decoded at 1/2, 1/4 or 1/8 of its sides; see `open_picture`.
- A file that is cut short, that is no image, whose pixels have no fixed range (32-bit integers, floats), or that has
  more than 100 million pixels, raises `Undecodable`.

One channel is the luminance of the same picture (ITU-R 601, as Pillow). For other numbers see `bands`.
"""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from polygrain.data.bands import NeedsPackage, decode_bands
from polygrain.data.eight_bits import eight_bits
from polygrain.data.opening import ORIENTATION_TAG, Undecodable, check_size, format_of, open_picture, quiet, turn_of

__all__ = ["ORIENTATION_TAG", "NeedsPackage", "Undecodable", "decode", "to_pixels"]

BITS_TAG, PHOTOMETRIC_TAG = 258, 262  # TIFF


def decode(data: bytes, channels: int = 3) -> Tensor:
    """Pixels of an encoded image, uint8 (channels, H, W).

    Raises:
        Undecodable: see above.
        NeedsPackage: when reading this kind of file takes a package that is not installed.
    """
    if not data:
        raise Undecodable("the file is empty")
    try:
        kind = format_of(data)
        if channels not in (1, 3) or kind == "NumPy":
            return decode_bands(data, channels)
        with quiet(kind), open_picture(data) as image:
            return to_pixels(image, channels)
    except (Undecodable, NeedsPackage):
        raise
    except Exception as error:  # hostile files make Pillow's readers raise nearly anything
        raise Undecodable(str(error) or type(error).__name__) from error


def to_pixels(image: Image.Image, channels: int = 3) -> Tensor:
    """Pixels of a Pillow image, uint8 (3, H, W), or (1, H, W) luminance.

    Raises:
        Undecodable: when it is too large, or its pixels have no fixed range.
    """
    check_size(*image.size)
    image.load()  # also applies the orientation of a TIFF, and must come before its metadata are read
    turn, mode = turn_of(image), {1: "L", 3: "RGB"}[channels]
    image = _plain(image)
    if image.mode != mode:
        image = image.convert(mode)
    values = np.array(image if turn is None else image.transpose(turn))
    return torch.from_numpy(values)[None] if channels == 1 else torch.from_numpy(values).permute(2, 0, 1).contiguous()


def _plain(image: Image.Image) -> Image.Image:
    """The same picture, opaque and with 8 bits a channel."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        return Image.fromarray(_gray(image))
    if image.mode in ("I", "F"):
        raise Undecodable(f"32-bit pixels (mode {image.mode}) have no fixed range; convert the file to 8 or 16 bits")
    if image.has_transparency_data:
        page = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(page, image.convert("RGBA")).convert("RGB")
    return image


def _gray(image: Image.Image) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Of 9 to 16 bits to 8; a TIFF says how many it has, and whether 0 is white, which Pillow leaves to us."""
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(BITS_TAG, (16,))[0]
    values = eight_bits(np.asarray(image).astype(np.uint16, copy=False), largest=2**bits - 1)
    return 255 - values if tags.get(PHOTOMETRIC_TAG) == 0 else values
