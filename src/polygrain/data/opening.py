"""The front of the decoder: what a file is, how large it says it is, and an open picture of it, before any pixel.

Pillow's readers are used directly and not through `Image.open`, so that nothing depends on
`Image.MAX_IMAGE_PIXELS` or `ImageFile.LOAD_TRUNCATED_IMAGES`, which belong to the program that polygrain runs in. (Only
the readers of GIF, TIFF and WebP refuse a picture themselves where a program has lowered the first.)
"""

import io
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

from PIL import Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from polygrain.data.integrity import png_damage

MAX_PIXELS = 100_000_000  # of a decoded picture; more is refused before anything is decoded
REDUCED_PIXELS = 16_000_000  # a JPEG of more is decoded at 1/2, 1/4 or 1/8 of its sides

READERS: dict[str, Callable[[io.BytesIO], ImageFile.ImageFile]] = {
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "WebP": WebPImageFile,
    "BMP": BmpImageFile,
    "GIF": GifImageFile,
    "TIFF": TiffImageFile,
    "PPM": PpmImageFile,
}
SIGNATURES = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    *((start, "TIFF") for start in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    *((b"P" + kind, "PPM") for kind in (b"1", b"2", b"3", b"4", b"5", b"6", b"f", b"F")),
    (b"\x93NUMPY", "NumPy"),
    (b"%PDF", "PDF"),
    (b"%!PS", "PostScript"),
    (b"8BPS", "Photoshop"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\0\0\1\0", "icon"),
    (b"PK\3\4", "zip"),
)
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
NO_IMAGES = ("HTML or XML", "zip", "NumPy")
BRANDS = {b"avif": "AVIF", b"avis": "AVIF", b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIF", b"msf1": "HEIF"}


class Undecodable(ValueError):
    """An image that cannot be turned into pixels; the message says why."""


class Whole(io.BytesIO):
    """The bytes of a file that must be whole: once `strict`, reading on at its end is an error.

    Pillow itself fills what is missing with gray where a program has set LOAD_TRUNCATED_IMAGES.
    """

    strict = False

    def read(self, size: int | None = -1, /) -> bytes:
        found = super().read(size)
        if self.strict and not found and size is not None and size > 0:
            raise OSError("the file is cut short")
        return found


class Strict:
    """One of Pillow's decoders, of which broken data raise also where LOAD_TRUNCATED_IMAGES lets Pillow ignore them."""

    NAME = "polygrain_strict"
    pulls_fd = False

    def __init__(self, mode: str, name: str, arguments: Any, *config: Any) -> None:
        self.decoder: Any = Image._getdecoder(mode, name, arguments, config)
        self.setimage, self.cleanup = self.decoder.setimage, self.decoder.cleanup

    def decode(self, data: bytes) -> tuple[int, int]:
        used, code = self.decoder.decode(data)
        if used < 0 and code < 0:
            raise OSError("broken data stream when reading image file")
        return used, code


def format_of(data: bytes) -> str | None:
    """The format that the first bytes speak of, be it one that can be read or not; None for an unknown one."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    if data[4:8] == b"ftyp":
        return BRANDS.get(data[8:12], "ISO media")
    for start, name in SIGNATURES:
        if data.startswith(start):
            return name
    beginning = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if b"<svg" in beginning:
        return "SVG"
    return "HTML or XML" if beginning.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")) else None


@contextmanager
def quiet(kind: str | None) -> Iterator[None]:
    """No warnings of bombs from the readers that check for them on their own; the bound here is ours."""
    if kind not in ("GIF", "TIFF"):
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def open_picture(data: bytes) -> ImageFile.ImageFile:
    """A Pillow image whose pixels are not decoded yet, and whose size is within bounds.

    A JPEG of more than 16 million pixels is set to decode at the first of 1/2, 1/4 and 1/8 of its sides that brings it
    to 16 million or fewer. From there on the reduced picture *is* the image: its size, boxes and centres count in its
    pixels. The scale depends on the file alone, so training, evaluation and every machine see the same picture.

    Raises:
        Undecodable: when the format is not read, the header is broken, or the picture too large.
    """
    kind = format_of(data)
    if kind not in READERS:
        if kind in (None, *NO_IMAGES):
            raise Undecodable("not an image" + (f" but {kind}" if kind else ""))
        raise Undecodable(f"unsupported format {kind}; convert it to JPEG or PNG")
    if kind == "WebP" and (size := _webp_size(data)):
        check_size(*size)  # its reader allocates the whole canvas when it opens
    file = Whole(data)
    with quiet(kind):
        image = READERS[kind](file)
    if kind == "JPEG":
        if data.rfind(b"\xff\xd9", file.tell()) < 0:  # zeros in place of the rest would decode, to gray
            raise Undecodable("the file is cut short: its end is missing")
        _reduce(cast(JpegImageFile, image), data)
    check_size(*image.size)
    if kind == "PNG" and (damage := png_damage(data)):  # Pillow does not compare the checksums of pixels
        raise Undecodable(damage)
    if kind in ("JPEG", "PNG", "GIF") and ImageFile.LOAD_TRUNCATED_IMAGES:
        Image.register_decoder(Strict.NAME, cast(type[ImageFile.PyDecoder], Strict))
        image.tile = [tile._replace(codec_name=Strict.NAME, args=(tile.codec_name, tile.args)) for tile in image.tile]
    file.strict = not (kind == "PPM" and data[1:2] in b"123")  # plain text may end with its last digit
    return image


def check_size(width: int, height: int, channels: int = 3) -> None:
    """Whether a picture of this size may be decoded.

    Raises:
        Undecodable: when it has no pixel, or more numbers than one of 100 million pixels and three channels.
    """
    if width < 1 or height < 1:
        raise Undecodable(f"{width}x{height} pixels; each side must be 1 or more")
    most = MAX_PIXELS * 3 // max(3, channels)
    if width * height > most:
        raise Undecodable(f"{width}x{height} pixels, above the limit of {most:,}; store it smaller, or in parts")


def turn_of(image: Image.Image) -> Image.Transpose | None:
    """What turns a picture as its EXIF orientation says, once its pixels are loaded; broken metadata say nothing."""
    try:
        return UPRIGHT.get(int(image.getexif().get(ORIENTATION_TAG, 1)))
    except Exception:  # they do not spoil the pixels
        return None


def _reduce(image: JpegImageFile, data: bytes) -> None:
    width, height = image.size
    if width * height <= REDUCED_PIXELS:
        return
    scale = next((s for s in (2, 4, 8) if math.ceil(width / s) * math.ceil(height / s) <= REDUCED_PIXELS), None)
    if scale is None:
        raise Undecodable(
            f"{width}x{height} pixels, at an eighth of the sides still above the limit of {REDUCED_PIXELS:,}"
        )
    if width * height > MAX_PIXELS and not _one_scan(data):
        raise Undecodable(
            f"{width}x{height} pixels in a progressive JPEG, which is decoded as a whole: above the limit of "
            f"{MAX_PIXELS:,}; store it as a baseline JPEG"
        )
    image.draft(None, (width // scale, height // scale))


def _one_scan(data: bytes) -> bool:
    """Whether a JPEG can be decoded row by row: sequential, all of its components in one scan."""
    at, components = 2, 0
    while at + 10 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker in (0xC0, 0xC1):
            components = data[at + 9]
        if marker == 0xDA:
            return data[at + 4] == components
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return False


def _webp_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of the canvas (WebP container specification; RFC 6386, 9.1; lossless bitstream, 3)."""
    chunk = data[12:16]
    if chunk == b"VP8X":
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
    elif chunk == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif chunk == b"VP8 ":
        width, height = (int.from_bytes(data[at : at + 2], "little") & 0x3FFF for at in (26, 28))
    else:
        return None
    return width, height
