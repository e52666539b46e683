"""Images of any number of channels: NumPy arrays, TIFFs of several bands or pages, and alpha taken as a channel.

- `.npy`: (H, W), (N, H, W) or (H, W, N), of uint8, or of uint16 whose 65535 is white; where both orders fit, channels
  come first. Pickled arrays are refused unread; so are floats, since nothing says which number is white.
- TIFF: one picture of N bands (read with tifffile, an extra), or N pages of one band each; bands as stored.
- PNG, WebP: gray with alpha is two channels, RGB with alpha four, as stored.
"""

import io
import math

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2
from torch import Tensor

from polygrain.data.eight_bits import eight_bits
from polygrain.data.opening import Undecodable, check_size, format_of, open_picture, quiet, turn_of

WIDTH_TAG, HEIGHT_TAG, BITS_TAG, SAMPLES_TAG = 256, 257, 258, 277  # TIFF
WITH_ALPHA = {"LA": 2, "RGBA": 4}


class NeedsPackage(ValueError):
    """A file that could be read if a package were installed; the message names it."""


def decode_bands(data: bytes, channels: int) -> Tensor:
    """Pixels of an encoded image that has exactly so many channels, uint8 (channels, H, W).

    Raises:
        Undecodable: when it has another number of channels, is broken or too large, or its pixels have no fixed range.
        NeedsPackage: when tifffile is needed and missing.
    """
    kind = format_of(data)
    if kind == "NumPy":
        values = _array(data, channels)
    elif kind == "TIFF":
        with quiet(kind):
            values = _tiff(data, channels)
    else:
        with open_picture(data) as image:
            return with_alpha(image, channels)
    return torch.from_numpy(np.array(values, order="C"))


def with_alpha(image: Image.Image, channels: int) -> Tensor:
    """A Pillow image of gray or RGB with alpha, as stored: uint8 (2 or 4, H, W).

    Raises:
        Undecodable: when it is another kind, or has another number of channels.
    """
    if WITH_ALPHA.get(image.mode) != channels:
        raise Undecodable(f"{len(image.getbands())} channels (mode {image.mode}), not {channels}")
    image.load()
    turn = turn_of(image)
    values = np.array(image if turn is None else image.transpose(turn))
    return torch.from_numpy(values).permute(2, 0, 1).contiguous()


def channels_first(shape: tuple[int, ...], channels: int) -> tuple[int, int, int]:
    """Which axes of an array of this shape are channels, rows and columns; -1 for channels that are not there.

    Raises:
        Undecodable: when no axis has so many channels.
    """
    if len(shape) == 2 and channels == 1:
        return -1, 0, 1
    if len(shape) == 3 and shape[0] == channels:
        return 0, 1, 2
    if len(shape) == 3 and shape[2] == channels:
        return 2, 0, 1
    wanted = f"({channels}, H, W) or (H, W, {channels})" + (" or (H, W)" if channels == 1 else "")
    found = f"{1 if len(shape) == 2 else min(shape[0], shape[2])} channels, " if len(shape) in (2, 3) else ""
    raise Undecodable(f"{found}array of shape {shape}, not {channels} channels: {wanted}")


def _array(data: bytes, channels: int) -> NDArray[np.uint8]:
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, columns_first, dtype = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, columns_first, dtype = np.lib.format.read_array_header_2_0(file)
    else:
        raise Undecodable(f"NumPy file of version {version}, which holds no plain array")
    eight_bits(np.empty(0, dtype))  # refuses other types
    axes = channels_first(shape, channels)
    check_size(shape[axes[2]], shape[axes[1]], channels)
    there, needed = len(data) - file.tell(), math.prod(shape) * dtype.itemsize
    if there < needed:
        raise Undecodable(f"the file is cut short: {there:,} of {needed:,} bytes of pixels")
    values = np.frombuffer(data, dtype, math.prod(shape), file.tell())
    values = values.reshape(shape, order="F" if columns_first else "C")
    return eight_bits(values[None] if axes[0] < 0 else values.transpose(axes))


def _tiff(data: bytes, channels: int) -> NDArray[np.uint8]:
    tags = _first_directory(data)
    samples = int(tags.get(SAMPLES_TAG, 1))
    check_size(int(tags[WIDTH_TAG]), int(tags[HEIGHT_TAG]), channels)
    if samples == 1:
        return _pages(data, channels)
    if samples != channels:
        raise Undecodable(f"{samples} channels, not {channels}")
    if channels in WITH_ALPHA.values() and set(tags.get(BITS_TAG, ())) == {8}:
        try:
            with open_picture(data) as image:
                return with_alpha(image, channels).numpy()
        except (Undecodable, SyntaxError):  # bands that are no colours
            pass
    return _one_picture(data)


def _first_directory(data: bytes) -> ImageFileDirectory_v2:
    file = io.BytesIO(data)
    header = file.read(8)
    if 43 in header[2:4]:  # BigTIFF
        header += file.read(8)
    directory = ImageFileDirectory_v2(header)
    file.seek(directory.next)
    directory.load(file)
    if WIDTH_TAG not in directory or HEIGHT_TAG not in directory:
        raise Undecodable("the TIFF does not say how large it is")
    return directory


def _pages(data: bytes, channels: int) -> NDArray[np.uint8]:
    pages: list[NDArray[np.uint8]] = []
    with open_picture(data) as image:
        frames = int(getattr(image, "n_frames", 1))
        if frames != channels:
            raise Undecodable(f"{frames} pages of one channel, not {channels} channels")
        for page in range(frames):
            image.seek(page)
            check_size(*image.size, channels)
            if image.mode not in ("L", "1") and not image.mode.startswith("I;16"):
                raise Undecodable(f"page {page + 1} has pixels of mode {image.mode}; wanted 8 or 16 bits of gray")
            pages.append(eight_bits(np.asarray(image)))
    if len({page.shape for page in pages}) > 1:
        raise Undecodable(f"pages of several sizes: {', '.join(sorted({str(page.shape) for page in pages}))}")
    return np.stack(pages)


def _one_picture(data: bytes) -> NDArray[np.uint8]:
    """All bands of the first page, as stored."""
    try:
        import tifffile
    except ImportError as error:
        raise NeedsPackage(
            "a TIFF of several bands in one picture needs tifffile: pip install 'polygrain[tiff]'"
        ) from error
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages.first
        for start, count in zip(page.dataoffsets, page.databytecounts, strict=True):
            if count == 0 or start + count > len(data):  # tifffile would fill them with zeros
                raise Undecodable("the file is cut short: a part of its pixels is missing")
        try:
            values = page.asarray()
        except ValueError as error:
            if "imagecodecs" not in str(error):
                raise
            raise NeedsPackage(f"{error}: pip install 'polygrain[tiff]'") from error
    return eight_bits(values if page.planarconfig == 2 else values.transpose(2, 0, 1))
