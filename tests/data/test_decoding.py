import io

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

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


def test_an_animation_gives_its_first_picture():
    red, blue = (Image.new("RGB", (4, 4), colour) for colour in ("red", "blue"))
    data = encoded(red, "GIF", save_all=True, append_images=[blue])
    assert pixels(data)[0, 0].tolist() == [255, 0, 0]


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


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_images_above_pillows_limit_are_undecodable(picture: Bytes, monkeypatch: pytest.MonkeyPatch):
    data = encoded(Image.fromarray(picture), "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 600)
    assert decode(data).shape == (3, 20, 30)
    for limit in (599, 250):  # Pillow itself only warns of the first
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(Undecodable, match=r"599|500"):
            decode(data)
