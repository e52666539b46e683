"""Damaged files, and what must hold when they are read: by test_fuzz.py for seconds, by benchmarks/fuzz.py for long.

What cannot be noticed: JPEG, WebP, GIF, BMP and PPM carry no checksum, so a flipped bit in their pixels gives a picture
with other pixels. A PNG has one for each chunk, a tar archive for each header; a missing end shows in all of them.
"""

import faulthandler
import io
import signal
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from polygrain.data.decoding import Undecodable, decode
from polygrain.data.opening import MAX_PIXELS
from polygrain.data.shards import ShardImages
from polygrain.data.tar import BLOCK, members

SECONDS = 10.0  # one case may take
Random = np.random.Generator
EXTREMES = (0, 1, 0x7F, 0x80, 0xFE, 0xFF)


class Broken(AssertionError):
    """A promise that was not kept."""


class Case(NamedTuple):
    """A damaged file."""

    of: str  # which seed
    how: str
    data: bytes


def photographs(real: Path) -> list[Image.Image]:
    """Small ones, so that a case takes well under a millisecond."""
    found = []
    for name in ("caltech", "imagenette", "coco"):
        with tarfile.open(real / name / "val.tar") as tar:
            member = next(member for member in tar if member.name.endswith(".jpg"))
            file = tar.extractfile(member)
            assert file is not None
            found.append(Image.open(io.BytesIO(file.read())).convert("RGB").resize((61, 47)))
    return found


def seeds(real: Path) -> dict[str, bytes]:
    """Whole files of every format, and of the kinds of each that take different ways through the decoder."""
    photo, second, third = photographs(real)
    deep = Image.fromarray(np.asarray(photo.convert("L")).astype(np.uint16) * 257)
    clear = photo.copy()
    clear.putalpha(128)
    exif = Image.Exif()
    exif[0x0112] = 6
    more = {"save_all": True, "append_images": [second.copy(), third.copy()]}
    files = {
        "jpeg": (photo, "JPEG", {}),
        "jpeg progressive": (second, "JPEG", {"progressive": True}),
        "jpeg rotated": (third, "JPEG", {"exif": exif, "quality": 95}),
        "jpeg cmyk": (photo.convert("CMYK"), "JPEG", {}),
        "jpeg gray": (photo.convert("L"), "JPEG", {"restart_marker_blocks": 4}),
        "png": (photo, "PNG", {}),
        "png 16": (deep, "PNG", {}),
        "png alpha": (clear, "PNG", {"exif": exif}),
        "png palette": (second.quantize(16), "PNG", {"transparency": 3}),
        "apng": (photo, "PNG", more),
        "webp": (photo, "WEBP", {}),
        "webp lossless": (clear, "WEBP", {"lossless": True, "exif": exif}),
        "webp animated": (photo, "WEBP", more),
        "gif": (photo.quantize(64), "GIF", {}),
        "gif animated": (photo, "GIF", more),
        "tiff": (photo, "TIFF", {"tiffinfo": {0x0112: 6}}),
        "tiff lzw": (photo, "TIFF", {"compression": "tiff_lzw"}),
        "tiff deflate": (deep, "TIFF", {"compression": "tiff_adobe_deflate"}),
        "tiff jpeg": (photo, "TIFF", {"compression": "jpeg"}),
        "tiff pages": (second, "TIFF", more),
        "bmp": (photo, "BMP", {}),
        "bmp palette": (photo.quantize(16), "BMP", {}),
        "ppm": (photo, "PPM", {}),
        "pgm 16": (deep, "PPM", {}),
        "pbm": (photo.convert("1"), "PPM", {}),
    }
    found: dict[str, bytes] = {}
    for name, (image, kind, options) in files.items():
        file = io.BytesIO()
        image.copy().save(file, kind, **options)  # type: ignore[arg-type]
        found[name] = file.getvalue()
    file = io.BytesIO()
    np.save(file, np.asarray(photo))
    return found | {"npy": file.getvalue()}


def flip(data: bytes, other: bytes, random: Random) -> bytes:
    """One to eight bits."""
    damaged = bytearray(data)
    for _ in range(int(random.integers(1, 9))):
        damaged[int(random.integers(len(data)))] ^= 1 << int(random.integers(8))
    return bytes(damaged)


def cut(data: bytes, other: bytes, random: Random) -> bytes:
    return data[: int(random.integers(len(data)))]


def header(data: bytes, other: bytes, random: Random) -> bytes:
    """Some of the first bytes become extreme, where sizes and depths stand."""
    damaged = bytearray(data)
    for _ in range(int(random.integers(1, 5))):
        damaged[int(random.integers(min(len(data), 160)))] = EXTREMES[int(random.integers(len(EXTREMES)))]
    return bytes(damaged)


def splice(data: bytes, other: bytes, random: Random) -> bytes:
    """The beginning of one file and the end of another."""
    return data[: int(random.integers(len(data)))] + other[int(random.integers(len(other))) :]


def drop(data: bytes, other: bytes, random: Random) -> bytes:
    start, end = sorted(random.integers(len(data) + 1, size=2).tolist())
    return data[:start] + data[start + (end - start) % 400 :]


def repeat(data: bytes, other: bytes, random: Random) -> bytes:
    start = int(random.integers(len(data)))
    piece = data[start : start + int(random.integers(1, 300))]
    return data[:start] + piece * int(random.integers(2, 20)) + data[start:]


def noise(data: bytes, other: bytes, random: Random) -> bytes:
    start, length = int(random.integers(len(data))), int(random.integers(1, 64))
    return data[:start] + random.bytes(length) + data[start + length :]


def glued(data: bytes, other: bytes, random: Random) -> bytes:
    """The signature of one format on the body of another."""
    size = int(random.integers(2, 40))
    return other[:size] + data[size:]


DAMAGES: tuple[Callable[[bytes, bytes, Random], bytes], ...] = (flip, cut, header, splice, drop, repeat, noise, glued)


def cases(files: dict[str, bytes], seed: int) -> Iterator[Case]:
    """Without end; the same ones for a seed."""
    random = np.random.default_rng(seed)
    names = list(files)
    while True:
        name, other = names[int(random.integers(len(names)))], names[int(random.integers(len(names)))]
        damage = DAMAGES[int(random.integers(len(DAMAGES)))]
        yield Case(name, damage.__name__, damage(files[name], files[other], random))


@contextmanager
def time_limit(seconds: float = SECONDS) -> Iterator[None]:
    """An error past the limit; where not even that gets through, the end of the process with a traceback."""

    def late(*_: object) -> None:
        raise Broken(f"not done after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    faulthandler.dump_traceback_later(6 * seconds, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def check_decode(case: Case, whole: Tensor, seconds: float = SECONDS) -> str:
    """Decodes a damaged file; `whole` are the pixels of the file before. Returns what came of it.

    Raises:
        Broken: when a promise was not kept.
    """
    start = time.perf_counter()
    try:
        with time_limit(seconds):
            pixels = decode(case.data)
    except Undecodable as error:
        if not str(error):
            raise Broken("an Undecodable without a reason") from error
        return "undecodable"
    except Exception as error:
        raise Broken(f"{type(error).__name__} instead of Undecodable: {error}") from error
    if pixels.dtype != torch.uint8 or pixels.ndim != 3 or len(pixels) != 3 or not 0 < pixels[0].numel() <= MAX_PIXELS:
        raise Broken(f"{pixels.dtype} {tuple(pixels.shape)} after {time.perf_counter() - start:.1f} s")
    same = torch.equal(pixels, whole)
    if case.how == "cut" and not same:
        raise Broken("a truncated file came back as a picture")
    if case.how == "flip" and "png" in case.of and not same:
        raise Broken("a PNG whose checksum does not fit came back as another picture")
    return "same picture" if same else "another picture"


def archives(real: Path) -> dict[str, bytes]:
    """Small archives of every tar format, with labels and long names."""
    file = io.BytesIO()
    photographs(real)[0].resize((9, 7)).save(file, "PNG")
    found = {}
    for name, kind in (("ustar", tarfile.USTAR_FORMAT), ("gnu", tarfile.GNU_FORMAT), ("pax", tarfile.PAX_FORMAT)):
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w", format=kind) as tar:
            for member in ("a.png", "a.cls", "d" * 90 + "/" + "e" * 60 + ".png", "../../x.png", "z.txt"):
                info = tarfile.TarInfo(member)
                content = b"3" if member.endswith(".cls") else file.getvalue()
                info.size, info.mtime = len(content), 1.5 if kind == tarfile.PAX_FORMAT else 1
                tar.addfile(info, io.BytesIO(content))
        found[name] = archive.getvalue()[: -8 * BLOCK]
    return found


def mended(data: bytes) -> bytes:
    """The archive with the checksum of every block that looks like a header made to fit, as a hostile one has it."""
    blocks = bytearray(data)
    for start in range(0, len(blocks) - BLOCK + 1, BLOCK):
        if blocks[start + 257 : start + 262] == b"ustar":
            blocks[start + 148 : start + 156] = b" " * 8
            blocks[start + 148 : start + 156] = f"{sum(blocks[start : start + BLOCK]):06o}\0 ".encode()
    return bytes(blocks)


def check_shard(data: bytes, path: Path, seconds: float = SECONDS) -> str:
    """Lists a damaged archive, written to `path`, and reads what it lists. Returns what came of it.

    Raises:
        Broken: when a promise was not kept.
    """
    path.write_bytes(data)
    try:
        with time_limit(seconds):
            for member, _ in members(path):
                if not 0 <= member.offset <= member.offset + member.size <= len(data):
                    raise Broken(f"{member} lies outside of {len(data)} bytes")
            images = ShardImages([path])
            for i in range(len(images)):
                with suppress(Undecodable):
                    images.load(i)
    except ValueError as error:
        if str(path) not in str(error):
            raise Broken(f"the message names no shard: {error}") from error
        return "refused"
    except Broken:
        raise
    except Exception as error:
        raise Broken(f"{type(error).__name__} instead of ValueError: {error}") from error
    return "listed"
