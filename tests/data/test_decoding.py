import io
import resource
import struct
import warnings
import zlib

import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFile

from polygrain.data.decoding import Undecodable, decode

Bytes = NDArray[np.uint8]


@pytest.fixture
def picture() -> Bytes:
    """(20, 30, 3) smooth, no two corners alike."""
    y, x = np.mgrid[:20, :30]
    return np.stack([8 * x, 12 * y, 255 - 4 * (x + y)], -1).astype(np.uint8)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixels(data: bytes) -> Bytes:
    """Decoded, (H, W, 3)."""
    tensor = decode(data)
    assert tensor.dtype == torch.uint8 and tensor.shape[0] == 3 and tensor.is_contiguous()
    return tensor.permute(1, 2, 0).numpy()


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("WebP", {"lossless": True}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("PPM", {}),
    ],
)
def test_lossless_formats_give_back_the_pixels_that_went_in(picture: Bytes, kind: str, options: dict[str, object]):
    assert (pixels(encoded(Image.fromarray(picture), kind, **options)) == picture).all()


def test_jpeg_is_near_the_pixels_that_went_in(picture: Bytes):
    shown = pixels(encoded(Image.fromarray(picture), "JPEG", quality=98, subsampling=0))
    assert np.abs(shown.astype(int) - picture).max() <= 6


def test_gray_gives_three_equal_channels(picture: Bytes):
    shown = pixels(encoded(Image.fromarray(picture[..., 0]), "PNG"))
    assert (shown == picture[..., :1]).all()


def test_sixteen_bits_are_scaled_by_depth_not_clipped():
    deep = np.array([[0, 128, 129, 257], [32768, 40000, 65406, 65535]], np.uint16)
    wanted = np.round(deep / 257)[..., None]
    for kind in ("PNG", "TIFF", "PPM"):
        assert (pixels(encoded(Image.fromarray(deep), kind)) == wanted).all(), kind


def test_alpha_is_laid_over_white(picture: Bytes):
    alpha = np.linspace(0, 255, picture.shape[1]).astype(np.uint8)[None].repeat(len(picture), 0)
    share = alpha[..., None] / 255
    wanted = picture * share + 255 * (1 - share)
    shown = pixels(encoded(Image.fromarray(np.dstack([picture, alpha])), "PNG"))
    assert np.abs(shown - wanted).max() <= 1


def test_gray_with_alpha_is_laid_over_white():
    shown = pixels(encoded(Image.fromarray(np.array([[[10, 255], [10, 0]]], np.uint8)), "PNG"))
    assert shown.tolist() == [[[10, 10, 10], [255, 255, 255]]]


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_palette_is_looked_up_and_its_transparent_entry_is_white(kind: str):
    image = Image.fromarray(np.array([[0, 1, 2], [2, 1, 0]], np.uint8), "L")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    red, green, white = [255, 0, 0], [0, 255, 0], [255, 255, 255]
    shown = pixels(encoded(image, kind, transparency=2))
    assert shown.tolist() == [[red, green, white], [white, green, red]]


def test_two_colours_with_a_transparent_one():
    image = Image.fromarray(np.array([[False, True]]))
    assert pixels(encoded(image, "PNG")).tolist() == [[[0, 0, 0], [255, 255, 255]]]


def test_cmyk_jpeg_is_converted():
    inks = np.zeros((16, 16, 4), np.uint8) + np.array([200, 40, 0, 55], np.uint8)
    wanted = (255 - np.array([200, 40, 0])) * (255 - 55) / 255
    shown = pixels(encoded(Image.fromarray(inks, "CMYK"), "JPEG", quality=95))
    assert np.abs(shown - wanted).max() <= 3


SIDES = {  # EXIF 2.3: where row 0 and column 0 of the stored pixels are seen
    1: ("top", "left"), 2: ("top", "right"), 3: ("bottom", "right"), 4: ("bottom", "left"),
    5: ("left", "top"), 6: ("right", "top"), 7: ("right", "bottom"), 8: ("left", "bottom"),
}  # fmt: skip


def stored(upright: Bytes, orientation: int) -> Bytes:
    """What a camera held so writes, by the table of the standard, pixel by pixel."""
    height, width = upright.shape[:2]
    row_side, column_side = SIDES[orientation]
    shape = (height, width) if row_side in ("top", "bottom") else (width, height)
    out = np.zeros((*shape, 3), np.uint8)
    for row in range(shape[0]):
        for column in range(shape[1]):
            seen = {row_side: row, column_side: column}
            y = seen["top"] if "top" in seen else height - 1 - seen["bottom"]
            x = seen["left"] if "left" in seen else width - 1 - seen["right"]
            out[row, column] = upright[y, x]
    return out


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_exif_orientation_is_undone(picture: Bytes, orientation: int, kind: str):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(stored(picture, orientation)), kind, exif=exif)
    assert (pixels(data) == picture).all()


def test_jpeg_with_orientation_stands_upright(picture: Bytes):
    exif = Image.Exif()
    exif[0x0112] = 6
    shown = pixels(encoded(Image.fromarray(stored(picture, 6)), "JPEG", exif=exif, quality=98, subsampling=0))
    assert shown.shape == picture.shape
    assert np.abs(shown.astype(int) - picture).max() <= 6


def test_broken_exif_does_not_spoil_the_pixels(picture: Bytes):
    data = encoded(Image.fromarray(picture), "PNG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff garbage")
    assert (pixels(data) == picture).all()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WebP", "BMP", "GIF", "TIFF"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_file_cut_short_is_an_error_not_half_a_picture(kind: str, share: float):
    noisy = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = encoded(Image.fromarray(noisy), kind)
    with pytest.raises(Undecodable):
        decode(data[: int(len(data) * share)])


@pytest.mark.parametrize(
    "data", [b"", b"<html>404</html>", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM\0\0"]
)
def test_what_is_no_image_is_undecodable(data: bytes):
    with pytest.raises(Undecodable) as error:
        decode(data)
    assert "BytesIO" not in str(error.value)


def test_pixels_without_a_fixed_range_are_undecodable():
    for deep in (np.ones((4, 4), np.float32), np.ones((4, 4), np.int32)):
        with pytest.raises(Undecodable, match="32-bit"):
            decode(encoded(Image.fromarray(deep), "TIFF"))


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def written_png(values: NDArray[np.generic], colour: int, size: tuple[int, int] | None = None) -> bytes:
    """A PNG by its specification: gray 0, RGB 2, gray and alpha 4, RGBA 6; (H, W) or (H, W, C) of 8 or 16 bits."""
    height, width = values.shape[:2] if size is None else size
    rows = values.astype(values.dtype.newbyteorder(">")).reshape(len(values), -1)
    header = struct.pack(">IIBBBBB", width, height, 8 * values.dtype.itemsize, colour, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    chunks = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", pixels) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def written_tiff(width: int, height: int, bits: int, photometric: int, pixels: bytes) -> bytes:
    """An uncompressed gray TIFF by its specification."""
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 0, 277: 1, 278: height, 279: len(pixels)}
    start = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, start if tag == 273 else v) for tag, v in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", 0) + pixels


DEEP = np.array(
    [
        [[0, 255, 256], [257, 32767, 32768], [65279, 65280, 65535]],
        [[65535, 65535, 65535], [1, 40000, 129], [12345, 54321, 999]],
    ],
    np.uint16,
)


def test_sixteen_bit_colours_are_scaled_and_white_stays_white():
    shown = pixels(written_png(DEEP, colour=2))
    assert np.abs(shown - DEEP / 257).max() <= 1
    assert shown[1, 0].tolist() == [255, 255, 255]
    file = io.BytesIO()
    tifffile.imwrite(file, DEEP, photometric="rgb")
    assert (pixels(file.getvalue()) == shown).all()


def test_sixteen_bit_alpha_is_laid_over_white():
    alpha = np.array([[0, 32768, 65535], [65535, 20000, 1]], np.uint16)[..., None]
    share = alpha / 65535
    wanted = (DEEP * share + 65535 * (1 - share)) / 257
    assert np.abs(pixels(written_png(np.concatenate([DEEP, alpha], 2), colour=6)) - wanted).max() <= 2
    gray = np.concatenate([DEEP[..., :1], alpha], 2)
    assert np.abs(pixels(written_png(gray, colour=4)) - wanted[..., :1]).max() <= 2


def test_twelve_bits_are_scaled_by_twelve_and_a_white_zero_is_white():
    deep = np.array([[0, 1000], [2048, 4095]], np.uint16)
    packed = b"".join(struct.pack(">I", a << 12 | b)[1:] for a, b in deep.tolist())
    assert (pixels(written_tiff(2, 2, 12, 1, packed)) == np.round(deep / 4095 * 255)[..., None]).all()
    whole = np.array([[0, 1000], [32768, 65535]], np.uint16)
    assert (pixels(written_tiff(2, 2, 16, 0, whole.tobytes())) == 255 - np.round(whole / 257)[..., None]).all()


def test_two_colours_become_black_and_white():
    bits = np.array([[True, False, True], [False, False, True]])
    for kind in ("PNG", "BMP", "TIFF", "PPM"):
        assert (pixels(encoded(Image.fromarray(bits), kind)) == 255 * bits[..., None]).all(), kind


def test_a_palette_with_a_share_of_transparency_for_each_entry_is_laid_over_white():
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "L")
    image.putpalette([255, 0, 0, 0, 100, 0, 40, 40, 40])
    shown = pixels(encoded(image, "PNG", transparency=bytes([255, 51, 0])))
    assert shown.tolist() == [[[255, 0, 0], [204, 224, 204], [255, 255, 255]]]


def test_gray_with_a_transparent_level_is_laid_over_white():
    shown = pixels(encoded(Image.fromarray(np.array([[9, 200]], np.uint8)), "PNG", transparency=9))
    assert shown.tolist() == [[[255, 255, 255], [200, 200, 200]]]


def test_ycck_jpeg_is_converted():
    """Adobe stores inks inverted; YCC is then of red = 1 - stored cyan and so on (libjpeg, jccolor.c)."""
    cyan, magenta, yellow, black = 75.0, 165.0, 215.0, 60.0
    luma = 0.299 * cyan + 0.587 * magenta + 0.114 * yellow
    stored = [luma, 128 + 0.564 * (yellow - luma), 128 + 0.713 * (cyan - luma), 255 - black]
    inks = np.zeros((16, 16, 4), np.uint8) + np.round(255 - np.array(stored)).astype(np.uint8)  # Pillow inverts
    data = encoded(Image.fromarray(inks, "CMYK"), "JPEG", quality=98, subsampling=0)
    transform = data.index(b"Adobe") + 11
    assert data[transform] == 0
    shown = pixels(data[:transform] + b"\2" + data[transform + 1 :])
    assert np.abs(shown - (255 - np.array([cyan, magenta, yellow])) * (255 - black) / 255).max() <= 3


def test_broken_colour_profiles_do_not_spoil_the_pixels(picture: Bytes):
    for kind in ("PNG", "TIFF"):
        assert (pixels(encoded(Image.fromarray(picture), kind, icc_profile=b"no profile")) == picture).all()


@pytest.mark.parametrize("kind", ["GIF", "WebP", "PNG", "TIFF"])
def test_of_several_pictures_the_first_is_taken(kind: str):
    red, blue = (Image.new("RGB", (4, 4), colour) for colour in ("red", "blue"))
    options = {"lossless": True} if kind == "WebP" else {}
    data = encoded(red, kind, save_all=True, append_images=[blue], **options)
    assert Image.open(io.BytesIO(data)).n_frames == 2
    assert (pixels(data) == [255, 0, 0]).all()


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\0\0\0\x1cftypavif", "AVIF"),
        (b"\0\0\0\x18ftypheic", "HEIC"),
        (b"%PDF-1.7", "PDF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "PostScript"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
    ],
)
def test_formats_that_are_not_read_are_named(data: bytes, name: str):
    with pytest.raises(Undecodable, match=f"unsupported format {name}; convert it"):
        decode(data + bytes(64))


def test_a_web_page_is_not_an_image():
    with pytest.raises(Undecodable, match="not an image but HTML"):
        decode(b"<!DOCTYPE html><html>404</html>")


# What Pillow would fill with gray


@pytest.fixture(params=[False, True], ids=["strict", "LOAD_TRUNCATED_IMAGES"])
def lenient(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", request.param)
    return bool(request.param)


KINDS = ("JPEG", "progressive JPEG", "PNG", "WebP", "BMP", "GIF", "TIFF", "LZW TIFF", "PPM")


def of_kind(picture: Bytes, kind: str) -> bytes:
    options = {"progressive JPEG": {"progressive": True}, "LZW TIFF": {"compression": "tiff_lzw"}}.get(kind, {})
    return encoded(Image.fromarray(picture), kind.split()[-1], **options)


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_the_program_says_a_cut_file_is_never_half_a_picture(kind: str, picture: Bytes, lenient: bool):
    data = of_kind(picture.repeat(3, 0).repeat(3, 1), kind)
    whole = decode(data)
    for end in range(len(data) // 50, len(data) - 1, max(1, len(data) // 50)):
        try:
            shown = decode(data[:end])
        except Undecodable:
            continue
        assert torch.equal(shown, whole), end  # all that was cut off came after the pixels
    assert lenient == ImageFile.LOAD_TRUNCATED_IMAGES


@pytest.mark.parametrize("kind", ["JPEG", "progressive JPEG", "PNG", "GIF"])
def test_broken_bytes_within_a_file_give_no_other_picture_whatever_the_program_says(
    kind: str, picture: Bytes, monkeypatch: pytest.MonkeyPatch
):
    data, random = of_kind(picture, kind), np.random.default_rng(0)
    refused = 0
    for _ in range(60):
        broken = bytearray(data)
        broken[random.integers(len(data))] = random.integers(256)
        ends: list[object] = []
        for lenient in (False, True):
            monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", lenient)
            try:
                ends.append(decode(bytes(broken)).tolist())
            except Undecodable:
                ends.append("refused")
        assert ends[1] in (ends[0], "refused")
        refused += ends[1] == "refused"
    assert refused > 5


def test_a_jpeg_whose_rest_is_zeros_is_cut_short(lenient: bool):
    noisy = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = encoded(Image.fromarray(noisy), "JPEG")
    half = len(data) // 2
    with pytest.raises(Undecodable, match="cut short"):
        decode(data[:half] + bytes(len(data) - half))


# Large and small


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def test_large_pictures_are_refused_by_their_header():
    tiny = np.zeros((1, 1), np.uint8)
    webp = encoded(Image.fromarray(tiny), "WebP", lossless=True)
    lossless = webp[:21] + struct.pack("<I", 16382 | 16382 << 14) + webp[25:]
    extended = b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\xff\x4f\0" * 2
    before = peak_megabytes()
    for data, size in (
        (written_png(tiny, 0, size=(20_000, 20_000)), "20000x20000"),
        (written_png(tiny, 0, size=(10_001, 10_000)), "10000x10001"),
        (written_tiff(20_000, 20_000, 8, 1, b""), "20000x20000"),
        (lossless, "16383x16383"),
        (extended, "20480x20480"),
        (b"P5 20000 20000 255 ", "20000x20000"),
        (b"GIF89a\x20\x4e\x20\x4e\x80\0\0" + bytes(6) + b",\0\0\0\0\x20\x4e\x20\x4e\0\2\0;", "20000x20000"),
    ):
        with pytest.raises(Undecodable, match=f"{size} pixels, above the limit of 100,000,000"):
            decode(data)
    assert peak_megabytes() - before < 20


def test_pillows_own_limit_and_its_warnings_play_no_part(picture: Bytes, monkeypatch: pytest.MonkeyPatch):
    for limit in (10, 400, None):  # an error, a warning, nothing
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for kind in ("JPEG", "PNG", "BMP", "PPM"):
                assert decode(of_kind(picture, kind)).shape == (3, 20, 30)
        assert limit == Image.MAX_IMAGE_PIXELS


def test_no_warning_reaches_the_user_of_pictures_within_the_limit(picture: Bytes, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)  # a picture of 600 pixels is one to warn of, for Pillow
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for kind in KINDS:
            assert decode(of_kind(picture, kind)).shape == (3, 20, 30)


def test_a_large_jpeg_is_decoded_at_half_its_sides():
    row, column = np.arange(4001) // 20, np.arange(5002) // 40
    large = (row[:, None] + column[None]).astype(np.uint8)
    shown = pixels(encoded(Image.fromarray(large), "JPEG", quality=95))
    assert shown.shape == (2001, 2501, 3)
    halves = large[:4000, :5002].reshape(2000, 2, 2501, 2).mean((1, 3))
    assert np.abs(shown[:2000, :, 0] - halves).mean() < 1


def patched(jpeg: bytes, width: int, height: int) -> bytes:
    """A JPEG that says of itself to be larger."""
    at = jpeg.index(b"\xff\xc2" if b"\xff\xc2" in jpeg else b"\xff\xc0")
    return jpeg[: at + 5] + struct.pack(">HH", height, width) + jpeg[at + 9 :]


def test_jpegs_that_cannot_be_decoded_in_little_memory_are_refused(picture: Bytes):
    before = peak_megabytes()
    with pytest.raises(Undecodable, match="20000x20000 pixels in a progressive JPEG"):
        decode(patched(of_kind(picture, "progressive JPEG"), 20_000, 20_000))
    with pytest.raises(Undecodable, match="60000x60000 pixels, at an eighth of the sides"):
        decode(patched(of_kind(picture, "JPEG"), 60_000, 60_000))
    baseline = patched(of_kind(picture, "JPEG"), 20_000, 20_000)
    scan = baseline.index(b"\xff\xda")
    apart = baseline[: scan + 4] + b"\1" + baseline[scan + 5 :]  # one component in this scan, the others later
    with pytest.raises(Undecodable, match="decoded as a whole"):
        decode(apart)
    assert peak_megabytes() - before < 20


@pytest.mark.parametrize("shape", [(1, 1), (1, 10_000), (10_000, 1), (8, 8)])
def test_the_smallest_and_the_longest_pictures_are_decoded(shape: tuple[int, int]):
    values = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    assert (pixels(encoded(Image.fromarray(values), "PNG")) == values).all()
