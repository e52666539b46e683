"""From the bytes of an image file to pixels: uint8 (3, H, W), always RGB, upright, complete.

What the many kinds of files become:

- JPEG, PNG, WebP, TIFF turned by their EXIF orientation are turned upright (broken EXIF is ignored).
- Grayscale gives three equal channels; 16-bit grayscale is divided by 257 and rounded, not clipped.
- Palettes are looked up. Transparent parts are laid over white, the page most cut-outs were made for.
- CMYK, YCbCr and the like are converted by Pillow, without colour profiles.
- Of an animation or a multi-page file, the first picture.
- A file that is cut short, that is no image, whose pixels have no fixed range (32-bit integers, floats), or that is
  larger than `PIL.Image.MAX_IMAGE_PIXELS`, raises `Undecodable`.
"""

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor

ORIENTATION_TAG = 0x0112  # EXIF
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Undecodable(ValueError):
    """An image that cannot be turned into pixels; the message says why."""


def decode(data: bytes) -> Tensor:
    """Pixels of an encoded image, uint8 (3, H, W).

    Raises:
        Undecodable: see above.
    """
    if not data:
        raise Undecodable("the file is empty")
    try:
        with Image.open(io.BytesIO(data)) as image:
            return to_pixels(image)
    except Undecodable:
        raise
    except Exception as error:  # hostile files make Pillow's readers raise nearly anything
        # Pillow's message for "no image" names the buffer it was given, which helps nobody
        reason = "not an image, or cut short" if "cannot identify" in str(error) else str(error)
        raise Undecodable(reason or type(error).__name__) from error


def to_pixels(image: Image.Image) -> Tensor:
    """Pixels of a Pillow image, uint8 (3, H, W).

    Raises:
        Undecodable: when it is too large, or its pixels have no fixed range.
    """
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise Undecodable(f"{image.width}x{image.height} pixels, above Pillow's limit of {limit:,} against bombs")
    image.load()  # also applies the orientation of a TIFF, and must come before its metadata are read
    upright = UPRIGHT.get(_orientation(image))
    image = _rgb(image)
    if upright is not None:
        image = image.transpose(upright)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()  # (H, W, 3) -> (3, H, W)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ORIENTATION_TAG, 1))
    except Exception:  # broken metadata do not spoil the pixels
        return 1


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        return Image.fromarray(_eight_bits(image)).convert("RGB")
    if image.mode in ("I", "F"):
        raise Undecodable(f"32-bit pixels (mode {image.mode}) have no fixed range; convert the file to 8 or 16 bits")
    if image.has_transparency_data:
        page = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(page, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """0..65535 to 0..255, rounded; white stays white."""
    deep = np.asarray(image).astype(np.uint32)
    return ((deep * 255 + 32767) // 65535).astype(np.uint8)
