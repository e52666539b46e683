"""Images that are not RGB: gray, with alpha as a channel, of many bands."""

import io
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from polygrain.data import bands, recipes
from polygrain.data.batch import Batch
from polygrain.data.cutting import cut
from polygrain.data.decoding import NeedsPackage, Undecodable, decode
from polygrain.data.draws import draw
from polygrain.data.images import Images
from polygrain.data.loading import ViewBatches
from polygrain.data.measuring import measure_normalisation
from polygrain.data.photometric import IMAGENET, Normalisation, contrast
from polygrain.data.randaugment import OPERATIONS
from polygrain.data.recipes import Recipe, switched_off, switched_off_in
from polygrain.data.sources import DatasetImages, open_images
from polygrain.views import Crops
from tests.data.test_decoding import encoded, written_png

Numbers = NDArray[np.generic]


def noise(*shape: int, dtype: type = np.uint8) -> Numbers:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, shape, dtype)


def npy(values: Numbers, **options: object) -> bytes:
    file = io.BytesIO()
    np.save(file, values, **options)
    return file.getvalue()


def tiff(values: Numbers, **options: object) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, values, **options)
    return file.getvalue()


def scaled(deep: Numbers) -> Numbers:
    return np.round(deep / 257).astype(np.uint8)


# Gray


def test_one_channel_is_the_luminance_of_what_three_show(real_images: Path):
    images = open_images(str(real_images / "caltech" / "train.tar"))
    gray = open_images(str(real_images / "caltech" / "train.tar"), channels=1)
    for i in range(0, 300, 60):
        red, green, blue = images.decode(i).numpy().astype(float)
        shown = gray.decode(i)
        assert shown.shape == (1, *red.shape)
        assert shown.dtype == torch.uint8
        assert np.abs(shown[0].numpy() - (0.299 * red + 0.587 * green + 0.114 * blue)).max() <= 0.51


def test_gray_pictures_of_every_depth_stay_what_they_are():
    values, deep = noise(9, 7), noise(9, 7, dtype=np.uint16)
    for data in (encoded(Image.fromarray(values), "PNG"), tiff(values), npy(values), npy(values[None])):
        assert (decode(data, 1)[0].numpy() == values).all()
    for data in (encoded(Image.fromarray(deep), "PNG"), tiff(deep), npy(deep), npy(deep[..., None])):
        assert (decode(data, 1)[0].numpy() == scaled(deep)).all()
    bits = values > 99
    assert (decode(encoded(Image.fromarray(bits), "PNG"), 1)[0].numpy() == 255 * bits).all()


def test_transparent_gray_is_laid_over_white():
    shown = decode(encoded(Image.fromarray(np.array([[[10, 255], [10, 0]]], np.uint8)), "PNG"), 1)
    assert shown.tolist() == [[[10, 255]]]


# Arrays


@pytest.mark.parametrize("channels", [2, 3, 4, 13])
def test_arrays_have_their_channels_first_or_last(channels: int):
    values = noise(channels, 8, 9)
    for version in (values, values.transpose(1, 2, 0), np.asfortranarray(values), np.asfortranarray(values[:, ::2])):
        axes = (0, 1, 2) if version.shape[0] == channels else (2, 0, 1)
        shown = decode(npy(version), channels)
        assert shown.is_contiguous()
        assert (shown.numpy() == version.transpose(axes)).all()


@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_arrays_of_sixteen_bits_are_scaled(order: str):
    deep = noise(5, 8, 9, dtype=np.uint16)
    assert (decode(npy(deep.astype(order)), 5).numpy() == scaled(deep)).all()


@pytest.mark.parametrize(
    ("values", "channels", "message"),
    [
        (noise(5, 8, 9), 4, "5 channels, array of shape .5, 8, 9., not 4 channels"),
        (noise(8, 9), 4, "1 channels, array of shape .8, 9., not 4"),
        (noise(2, 4, 8, 9), 4, "not 4 channels"),
        (noise(4, 0, 9), 4, "9x0 pixels"),
        (np.zeros((4, 8, 9), np.float32), 4, "type float32 have no fixed range; convert them to uint8 or uint16"),
        (np.zeros((4, 8, 9), np.int16), 4, "type int16 have no fixed range"),
        (np.array([{}]), 4, "type object have no fixed range"),
    ],
)
def test_arrays_that_do_not_fit_say_why(values: Numbers, channels: int, message: str):
    with pytest.raises(Undecodable, match=message):
        decode(npy(values), channels)


def test_a_cut_array_is_undecodable():
    for data in (npy(noise(4, 8, 9))[:-1], npy(noise(4, 8, 9))[:90], b"\x93NUMPY", b"\x93NUMPY\x03\x00"):
        with pytest.raises(Undecodable):
            decode(data, 4)


def test_the_limit_counts_channels(monkeypatch: pytest.MonkeyPatch):
    header = npy(np.zeros((100, 1, 1), np.uint8))
    wide = header.replace(b"(100, 1, 1), }  ", b"(100,2000,2000)}")
    assert wide != header
    with pytest.raises(Undecodable, match=r"2000x2000 pixels, above the limit of 3,000,000"):
        decode(wide, 100)


# TIFF


@pytest.mark.parametrize("channels", [2, 4, 5, 13])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiffs_of_many_bands_give_them_as_stored(channels: int, dtype: type):
    values = noise(channels, 40, 33, dtype=dtype)
    wanted = values if dtype == np.uint8 else scaled(values)
    last = np.ascontiguousarray(values.transpose(1, 2, 0))
    files = [
        tiff(values, photometric="minisblack", planarconfig="separate"),
        tiff(last, photometric="minisblack", planarconfig="contig"),
        tiff(last, photometric="minisblack", planarconfig="contig", compression="zlib", tile=(16, 16)),
        tiff(values, photometric="minisblack", bigtiff=True),  # pages
    ]
    for data in files:
        assert (decode(data, channels).numpy() == wanted).all()


def test_pages_are_channels_even_without_tifffile(monkeypatch: pytest.MonkeyPatch):
    values = noise(5, 20, 30)
    pages = [Image.fromarray(page) for page in values]
    data = encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:], compression="tiff_lzw")
    monkeypatch.setitem(__import__("sys").modules, "tifffile", None)
    assert (decode(data, 5).numpy() == values).all()
    with pytest.raises(NeedsPackage, match=r"needs tifffile: pip install 'polygrain\[tiff\]'"):
        decode(tiff(noise(20, 30, 5), photometric="minisblack", planarconfig="contig"), 5)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (tiff(noise(5, 20, 30), photometric="minisblack", planarconfig="separate"), "5 channels, not 4"),
        (tiff(noise(5, 20, 30), photometric="minisblack"), "5 pages of one channel, not 4 channels"),
        (tiff(noise(20, 30, 3), photometric="rgb"), "3 channels, not 4"),
        (tiff(noise(4, 20, 30).astype(np.float32), photometric="minisblack", planarconfig="separate"), "type float32"),
        (encoded(Image.fromarray(noise(20, 30, 3)), "PNG"), r"3 channels \(mode RGB\), not 4"),
        (encoded(Image.fromarray(noise(20, 30)), "JPEG"), r"1 channels \(mode L\), not 4"),
        (encoded(Image.fromarray(noise(20, 30, 4), "CMYK"), "JPEG"), r"mode CMYK\), not 4"),
    ],
)
def test_pictures_of_another_number_of_channels_name_both(data: bytes, message: str):
    with pytest.raises(Undecodable, match=message):
        decode(data, 4)


@pytest.mark.parametrize("options", [{"planarconfig": "separate"}, {"planarconfig": "contig"}, {}])
def test_a_cut_tiff_never_comes_back_with_zeros(options: dict[str, str]):
    values = noise(5, 20, 30) | 1
    data = tiff(values if options != {"planarconfig": "contig"} else values.transpose(1, 2, 0).copy(),
                photometric="minisblack", metadata=None, **options)  # fmt: skip
    whole, refused = decode(data, 5), 0
    for end in range(8, len(data), 97):
        try:
            shown = decode(data[:end], 5)
        except Undecodable:
            refused += 1
        else:
            assert torch.equal(shown, whole)  # remarks at the end of the file are not needed
    assert refused > 20


def test_alpha_is_a_channel_where_four_are_asked_for():
    values = noise(20, 30, 4)
    for data in (encoded(Image.fromarray(values), "PNG"), tiff(values, photometric="rgb", extrasamples="unassalpha")):
        assert (decode(data, 4).numpy() == values.transpose(2, 0, 1)).all()
    assert (decode(written_png(values[..., :2], colour=4), 2).numpy() == values[..., :2].transpose(2, 0, 1)).all()


# Sources


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six arrays of five channels in two classes, and a photograph that has another number."""
    for i in range(6):
        (tmp_path / f"class {i % 2}").mkdir(exist_ok=True)
        values = np.random.default_rng(i).integers(0, 40 * (i + 1), (5, 30 + i, 40), np.uint8)
        np.save(tmp_path / f"class {i % 2}" / f"{i}.npy", values)
    return tmp_path


def test_folders_list_arrays_where_channels_are_no_colours(folder: Path):
    images = open_images(folder, channels=5)
    assert (len(images), images.channels, images.classes) == (6, 5, ["class 0", "class 1"])
    assert images.decode(0).shape == (5, 30, 40)
    with pytest.raises(ValueError, match=r"no image .* 6 \.npy"):
        open_images(folder)


def test_a_file_of_another_number_of_channels_is_replaced_and_named(folder: Path, capsys: pytest.CaptureFixture[str]):
    Image.fromarray(noise(30, 40, 3)).save(folder / "class 0" / "0 photograph.png")
    images = open_images(folder, channels=5)
    assert images.read(0).source == 1
    assert "cannot decode 'class 0/0 photograph.png': 3 channels (mode RGB), not 5" in capsys.readouterr().err


def test_channels_are_asked_for_in_one_way_only(folder: Path):
    with pytest.raises(ValueError, match="opened with 5 channels, and 3 are asked for"):
        open_images(open_images(folder, channels=5))
    with pytest.raises(ValueError, match="channels is 0; it must be 1 or more"):
        open_images(folder, channels=0)
    with pytest.raises(ValueError, match="the built-in scenes have 3 channels"):
        open_images("scenes", channels=4)


def test_datasets_may_have_any_number_of_channels():
    last = [(torch.from_numpy(noise(20, 30, 5)), 1)]
    images = DatasetImages(Listed(last), channels=5)
    assert torch.equal(images.load(0), last[0][0].permute(2, 0, 1))
    with pytest.raises(ValueError, match=r"has shape \(20, 30, 5\); wanted \(4, H, W\), \(H, W, 4\)$"):
        DatasetImages(Listed(last), channels=4)
    pictures = [(Image.fromarray(noise(20, 30, 4)), 0)]
    assert torch.equal(DatasetImages(Listed(pictures), channels=4).load(0), torch.from_numpy(noise(20, 30, 4)).permute(2, 0, 1))  # fmt: skip  # noqa: E501


class Listed:
    def __init__(self, items: list) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> tuple:
        return self.items[i]


# Views

REQUESTS = (
    Crops(name="large", count=2, size=48, scale=(0.25, 1.0), recipes=("byol_a", "byol_b")),
    Crops(
        name="small",
        count=6,
        size=16,
        scale=(0.05, 0.25),
        recipes=("dino_local",),
        strong_recipe="mugs_strong",
        strong_probability=0.5,
    ),
)
GEOMETRY = {"Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY"}


def plain(channels: int) -> Normalisation:
    return Normalisation((0.0,) * channels, (1 / 255,) * channels)


def cut_all(images: list[Tensor], requests: tuple[Crops, ...], epoch: int = 0) -> dict:
    channels = len(images[0])
    draws = [
        draw(requests, *image.shape[1:], seed=0, epoch=epoch, image=i, channels=channels)
        for i, image in enumerate(images)
    ]
    return cut(images, draws, plain(channels))


def test_what_makes_no_sense_without_colours_is_named():
    assert switched_off("byol_a", 3) == switched_off("mugs_strong", 3) == []
    assert switched_off("byol_a", 1) == ["saturation", "hue", "grayscale"]
    assert switched_off("dino_2", 5) == ["saturation", "hue", "grayscale", "solarisation"]
    assert "RandAugment's Equalize" in switched_off("mugs_strong", 4)
    assert not any(kept in name for name in switched_off("mugs_strong", 4) for kept in (*GEOMETRY, "Brightness"))
    everything = switched_off_in(REQUESTS, 5)
    assert everything[:4] == ["saturation", "hue", "grayscale", "solarisation"]
    assert len(everything) == len(set(everything)) == 4 + 8


def test_nothing_that_is_switched_off_is_ever_drawn():
    found = [draw(REQUESTS, 60, 80, seed=0, epoch=e, image=0, channels=5).numbers for e in range(200)]
    assert not any(n.gray.any() or n.solarised.any() for n in found)
    assert all((n.jitter[:, 2] == 1).all() and (n.jitter[:, 3] == 0).all() for n in found)
    drawn = {OPERATIONS[k] for n in found for k in n.operations.flatten() if k >= 0}
    assert drawn == GEOMETRY | {"Brightness", "Sharpness"}
    # about half of the strong crops, two operations each, half of them applied
    share = np.concatenate([n.operations[n.strong] >= 0 for n in found]).mean()
    assert share == pytest.approx(0.5, abs=0.05)


def test_three_channels_are_drawn_as_ever():
    with_channels = draw(REQUESTS, 60, 80, seed=3, epoch=1, image=4, channels=3).numbers
    without = draw(REQUESTS, 60, 80, seed=3, epoch=1, image=4).numbers
    assert all(np.array_equal(a, b) for a, b in zip(with_channels, without, strict=True))


def test_each_channel_is_cut_as_if_it_were_alone(monkeypatch: pytest.MonkeyPatch):
    """Geometry, brightness, sharpness and blur do not mix channels: seven at once are seven gray images."""
    recipe = Recipe(jitter=(0.4, 0, 0, 0), jitter_probability=0.8, blur_probability=0.5, rand_augment="image")
    monkeypatch.setitem(recipes.RECIPES, "apart", recipe)
    requests = (Crops(name="crops", count=12, size=32, scale=(0.1, 1.0), recipes=("apart",)),)
    image = torch.from_numpy(noise(7, 50, 60))
    together = cut_all([image], requests)["crops"]
    for c in range(7):
        alone = cut_all([image[c : c + 1]], requests)["crops"]
        for a, b in zip(together, alone, strict=True):
            assert torch.equal(a.pixels[:, c : c + 1], b.pixels)


def test_one_channel_is_cut_as_three_equal_ones(monkeypatch: pytest.MonkeyPatch):
    recipe = Recipe(jitter=(0.4, 0.4, 0, 0), jitter_probability=0.9, blur_probability=0.5)
    monkeypatch.setitem(recipes.RECIPES, "gray", recipe)
    requests = (Crops(name="crops", count=12, size=32, scale=(0.1, 1.0), recipes=("gray",)),)
    image = torch.from_numpy(noise(1, 50, 60))
    one, three = (cut_all([image.expand(c, -1, -1)], requests)["crops"] for c in (1, 3))
    for a, b in zip(one, three, strict=True):
        assert torch.equal(a.pixels.expand(-1, 3, -1, -1), b.pixels)


def test_contrast_draws_to_the_mean_of_all_channels():
    stack = torch.tensor([[10.0, 20.0], [60.0, 110.0]]).view(1, 2, 1, 2).clone()
    contrast(stack, torch.full((1, 1, 1, 1), 0.5))
    # lightness 35 and 65, mean 50: half way there
    assert stack.flatten().tolist() == [30, 35, 55, 80]


def test_what_lies_outside_shows_the_mean_of_each_channel():
    image = torch.full((6, 40, 40), 200, dtype=torch.uint8)
    normalisation = Normalisation((0.1, 0.2, 0.3, 0.4, 0.5, 0.6), (1.0,) * 6)
    requests = (Crops(name="crops", count=40, size=40, scale=(1.0, 1.0), ratio=(1, 1), recipes=("mugs_strong",)),)
    views = cut(
        [image], [draw(requests, 40, 40, seed=0, epoch=0, image=0, channels=6)], normalisation
    )["crops"]  # fmt: skip
    moved = [v for v in views if 0.05 < (v.pixels[0, 0].abs() < 0.01).float().mean() < 0.5]
    assert moved
    for view in moved:
        outside = view.pixels[0, 0].abs() < 0.01
        assert view.pixels[0][:, outside].abs().median(1).values.max() < 0.01


def test_tiny_images_and_single_pixels_train(tmp_path: Path):
    for i, shape in enumerate([(8, 8), (8, 11), (1, 1), (1, 10_000), (2, 3), (10_000, 1)]):
        Image.fromarray(noise(*shape, 3)).save(tmp_path / f"{i}.png")
    batch = ViewBatches(open_images(tmp_path), REQUESTS, seed=0).__getitems__([(0, i) for i in range(6)])
    for view in batch.views["large"]:
        assert view.pixels.shape == (6, 3, 48, 48)
        assert view.pixels.isfinite().all()
        assert view.pixels[0].std() > 0.1  # upscaled, not lost


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_of_five_channels(folder: Path, workers: int):
    images = open_images(folder, channels=5)
    normalisation = measure_normalisation(images)
    dataset = ViewBatches(images, REQUESTS, seed=0, normalisation=normalisation)
    keys = [[(0, 0), (0, 1), (0, 2)], [(0, 3), (0, 4), (0, 5)]]
    loader: DataLoader[Batch] = DataLoader(dataset, batch_sampler=keys, num_workers=workers, collate_fn=lambda x: x)
    found = torch.cat([view.pixels for batch in loader for view in batch.views["large"]])
    assert found.shape == (12, 5, 48, 48)
    assert found.isfinite().all()


# Normalisation


class Measured(Images):
    def __init__(self, pictures: list[Tensor], broken: int = -1) -> None:
        super().__init__(len(pictures))
        self.pictures, self.broken_place, self.channels = pictures, broken, len(pictures[0])

    def name(self, i: int) -> str:
        return str(i)

    def load(self, i: int) -> Tensor:
        if i == self.broken_place:
            raise Undecodable("on purpose")
        return self.pictures[i]


def test_mean_and_deviation_are_those_of_numpy():
    random = np.random.default_rng(1)
    pictures = [random.integers(20 * c, 30 * c + 9, (4, 60, 40), np.uint8) for c in range(1, 8)]
    found = measure_normalisation(Measured([torch.from_numpy(picture) for picture in pictures]))
    every = np.stack(pictures, 1).reshape(4, -1) / 255  # all of one size, so that every pixel counts the same
    np.testing.assert_allclose(found.mean, every.mean(1), rtol=1e-12)
    np.testing.assert_allclose(found.std, every.std(1), rtol=1e-9)


def test_every_image_counts_the_same_whatever_its_size():
    pictures = [torch.zeros(1, 100, 100, dtype=torch.uint8), torch.full((1, 2, 2), 255, dtype=torch.uint8)]
    assert measure_normalisation(Measured(pictures)) == Normalisation((0.5,), (0.5,))


def test_the_sample_is_the_same_each_time_and_leaves_out_what_is_broken():
    pictures = [torch.from_numpy(np.random.default_rng(i).integers(0, 256, (2, 9, 9), np.uint8)) for i in range(50)]
    first = measure_normalisation(Measured(pictures), sample=10, seed=1)
    assert first == measure_normalisation(Measured(pictures), sample=10, seed=1)
    assert first != measure_normalisation(Measured(pictures), sample=10, seed=2)
    without = measure_normalisation(Measured([*pictures[:3], *pictures[4:]]))
    np.testing.assert_allclose(measure_normalisation(Measured(pictures, broken=3)), without, rtol=1e-12)


def test_a_constant_channel_cannot_be_normalised():
    pictures = [torch.from_numpy(noise(3, 9, 9)) for _ in range(4)]
    for picture in pictures:
        picture[1] = 255
    with pytest.raises(ValueError, match="channel 1 is 255 of 255 in all of 4 images; leave it out"):
        measure_normalisation(Measured(pictures))


def test_photographs_measure_about_as_imagenet(real_images: Path):
    found = measure_normalisation(open_images(str(real_images / "imagenette" / "train.tar")), sample=60)
    np.testing.assert_allclose(found.mean, IMAGENET.mean, atol=0.05)
    np.testing.assert_allclose(found.std, IMAGENET.std, atol=0.08)


def test_bands_have_no_part_in_ordinary_pictures(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bands, "decode_bands", None)
    assert decode(encoded(Image.fromarray(noise(9, 9, 3)), "PNG")).shape == (3, 9, 9)
