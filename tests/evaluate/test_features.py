import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from polygrain.cli import main
from polygrain.data.centred import centred
from polygrain.data.images import Images
from polygrain.data.photometric import IMAGENET, Normalisation
from polygrain.evaluate import labelled
from polygrain.evaluate.features import evaluating, extract
from polygrain.evaluate.knn import evaluate_knn
from polygrain.evaluate.models import Model
from polygrain.evaluate.pixels import RawPixels
from polygrain.evaluate.settings import KnnSettings
from polygrain.parts.encoder import Encoder, EncoderSettings
from tests.evaluate.fakes import Coloured


def bytes_of(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize("batch_size", [1, 4, 7, 100])
@pytest.mark.parametrize("workers", [0, 2])
def test_every_image_is_encoded_once_and_in_order(batch_size, workers):
    images = Coloured([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
    seen = extract(RawPixels(), images, size=16, batch_size=batch_size, workers=workers)
    one_by_one = torch.cat(
        [RawPixels().features(centred(images.decode(i), 16, IMAGENET)[None]).pooled for i in range(11)]
    )
    assert seen.positions.tolist() == list(range(11))
    torch.testing.assert_close(seen.pooled, one_by_one)


def test_chosen_positions_come_in_the_order_asked_for():
    images = Coloured([0, 1, 2, 3, 4])
    all_of_them = extract(RawPixels(), images, size=16).pooled
    some = extract(RawPixels(), images, size=16, positions=[4, 1])
    assert torch.equal(some.pooled, all_of_them[[4, 1]])


def test_an_image_that_cannot_be_decoded_is_missing_and_its_replacement_is_not_counted_twice():
    seen = extract(RawPixels(), Coloured([0, 1, 2, 3], broken_at=(1,)), size=16, patches=True)
    assert seen.positions.tolist() == [0, 2, 3]
    assert len(seen.pooled) == len(seen.patches) == 3


def test_no_byte_of_the_encoder_changes_and_every_part_keeps_its_mode():
    encoder = Encoder(EncoderSettings(name="resnet18_64")).train()
    encoder.model.bn1.eval()
    before = bytes_of(encoder)
    extract(encoder, Coloured([0, 1, 2]), size=16)
    assert all(torch.equal(before[name], tensor) for name, tensor in encoder.state_dict().items())
    assert encoder.training
    assert encoder.model.layer1.training
    assert not encoder.model.bn1.training


def test_the_encoder_is_in_evaluation_mode_while_it_encodes():
    encoder = Encoder(EncoderSettings(name="vit_mini_64", arguments={"depth": 1, "drop_path_rate": 0.9})).train()
    images = Coloured([0, 1, 2], size=64)
    first = extract(encoder, images, size=64, patches=True)
    again = extract(encoder, images, size=64, patches=True)
    assert torch.equal(first.pooled, again.pooled)
    assert first.patches.shape == (3, 64, 192)
    assert first.grid == (8, 8)
    with evaluating(encoder), torch.no_grad():
        pixels = torch.stack([centred(images.decode(i), 64, IMAGENET) for i in range(3)])
        torch.testing.assert_close(first.pooled, encoder.features(pixels).pooled)


def test_a_feature_that_is_not_finite_names_its_image():
    encoder = RawPixels()
    encoder.std[0] = float("nan")
    with pytest.raises(ValueError, match="'picture 3'"):
        extract(encoder, Coloured([0, 1, 2, 3, 4]), size=16, positions=[3, 4])


def test_images_are_prepared_as_pillow_does_it():
    random = np.random.default_rng(0)
    picture = Image.fromarray(random.integers(0, 256, (20, 26, 3), dtype=np.uint8)).resize((80, 60), Image.BICUBIC)
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    ours = centred(pixels, 28, IMAGENET)  # short side 60 to 32, then the 28 in the middle
    resized = picture.resize((42, 32), Image.BICUBIC)  # 80 * 32 / 60 = 42.7, cut
    middle = np.asarray(resized)[2:30, 7:35] / 255
    expected = (middle - IMAGENET.mean) / IMAGENET.std
    assert np.abs(ours.permute(1, 2, 0).numpy() - expected).max() < 2.1 / 255 / 0.224


def test_raw_pixels_are_pillows_reduced_pixels_without_their_mean():
    random = np.random.default_rng(0)
    picture = random.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    pixels = centred(torch.from_numpy(picture).permute(2, 0, 1), 64, IMAGENET)
    seen = RawPixels(patch_size=8).features(pixels[None])
    small = picture.reshape(16, 4, 16, 4, 3).mean(axis=(1, 3)).transpose(2, 0, 1).ravel() / 255
    np.testing.assert_allclose(seen.pooled[0], small - small.mean(), atol=1e-5)
    assert seen.grid == (8, 8)
    block = picture[8:16, 16:24].transpose(2, 0, 1).ravel() / 255  # row 1, column 2
    np.testing.assert_allclose(seen.patches[0, 10], block, atol=1e-5)


def test_pixel_knn_on_real_images_is_its_published_floor(real_images):
    """Imagenette, 250 validation images: 30.0 % with 16x16 pixels made by other code, cosine, k=10, exp(s/0.1)."""
    folder = real_images / "imagenette"
    settings = KnnSettings(k=(10,), temperature=0.1, size=224, workers=0)
    result = evaluate_knn("pixels", str(folder / "train.tar"), str(folder / "val.tar"), settings)
    assert result.facts["val"]["images"] == 250
    assert result.scores["k=10"]["top1"] == pytest.approx(0.300, abs=0.0121)  # three images


# Images at their own aspect


def photograph(height: int, width: int, seed: int = 0) -> torch.Tensor:
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.integers(0, 256, (max(2, height // 8), max(2, width // 8), 3), dtype=np.uint8))
    return torch.from_numpy(np.array(small.resize((width, height), Image.BICUBIC))).permute(2, 0, 1)


@pytest.mark.parametrize("protocol", ["knn", "unlabelled", "retrieve"])
def test_images_that_would_not_fill_the_crop_are_refused_at_the_models_own_size_too(protocol, capsys):
    options = ["--data", "scenes:20:32", "--resize", "40", "--workers", "0", "--cache", "none"]
    options += ["--val", "scenes:20:32:1"] if protocol == "knn" else []
    assert main(["evaluate", protocol, "pixels", *options]) == 2
    assert (
        "resize is 40, less than the crop of 64, by default the size the model was trained" in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("shape", "resize", "wanted"),
    [
        ((375, 500), None, (224, 288)),  # short side to 256, long one to 341; 224/256 of that is 298, 18 patches
        ((500, 375), None, (288, 224)),
        ((375, 500), 224, (224, 288)),  # 298 again, all of it
        ((224, 500), None, (224, 496)),  # not resized
        ((333, 333), None, (224, 224)),
        ((256, 270), None, (224, 224)),  # 236 is not a patch more than 224
        ((100, 10_000), None, (224, 8 * 224)),  # the middle of what is longer than 8 to 1
    ],
)
def test_views_at_native_aspect_have_these_sizes(shape, resize, wanted):
    view = centred(photograph(*shape), 224, IMAGENET, resize, multiple=16)
    assert tuple(view.shape) == (3, *wanted)


def test_a_native_view_shows_what_a_square_one_shows_and_more_to_both_sides():
    image = photograph(375, 500)
    square, native = centred(image, 224, IMAGENET), centred(image, 224, IMAGENET, multiple=16)
    assert torch.equal(native[:, :, 32:-32], square)


@pytest.mark.parametrize("side", [224, 256, 300])
def test_square_images_are_the_same_at_both_aspects(side):
    image = photograph(side, side)
    assert torch.equal(centred(image, 224, IMAGENET), centred(image, 224, IMAGENET, multiple=16))


def test_a_line_of_pixels_is_not_blown_up():
    image = photograph(2, 10_000)[:, :1]  # 1 x 10,000, whose long side would become 2,560,000
    assert centred(image, 224, IMAGENET).shape == (3, 224, 224)
    assert centred(image, 224, IMAGENET, multiple=16).shape == (3, 224, 1792)


class Shaped(Images):
    """Images of these heights and widths."""

    def __init__(self, *shapes: tuple[int, int]) -> None:
        super().__init__(len(shapes))
        self.pictures = [photograph(*shape, seed=i) for i, shape in enumerate(shapes)]

    def name(self, i: int) -> str:
        return str(i)

    def load(self, i: int) -> torch.Tensor:
        return self.pictures[i]


SETTINGS = EncoderSettings(name="vit_mini_64", arguments={"depth": 2})


@pytest.mark.parametrize("position", ["timm", "dino"])
@pytest.mark.parametrize("workers", [0, 2])
def test_native_features_are_those_of_each_image_alone_and_in_order(position, workers):
    encoder = Encoder(dataclasses.replace(SETTINGS, position=position)).eval()
    images = Shaped((80, 120), (64, 64), (120, 80), (80, 120), (64, 200), (90, 90))
    seen = extract(encoder, images, size=64, batch_size=4, workers=workers, aspect="native")
    assert seen.positions.tolist() == list(range(6))
    for i in range(6):
        with torch.no_grad():
            view = centred(images.load(i), 64, IMAGENET, multiple=8)
            alone = encoder.features(view[None])
        assert alone.grid == (view.shape[1] // 8, view.shape[2] // 8)
        torch.testing.assert_close(seen.pooled[i], alone.pooled[0], atol=1e-5, rtol=1e-5)


def test_native_features_of_square_images_are_the_present_ones_to_the_last_bit():
    encoder = Encoder(SETTINGS)
    images = Shaped((80, 80), (64, 64), (100, 100), (70, 70), (90, 90))
    square, native = (
        extract(encoder, images, size=64, batch_size=3, aspect=aspect).pooled for aspect in ("square", "native")
    )
    assert torch.equal(square, native)


def test_patches_at_native_aspect_are_refused():
    with pytest.raises(ValueError, match="differ in number; keep the pooled vectors, or use square"):
        extract(RawPixels(), Shaped((20, 30)), size=16, patches=True, aspect="native")


def test_knn_at_native_aspect_says_so(tmp_path):
    for name in ("train", "val"):
        for i in range(8):
            folder = tmp_path / name / f"class {i % 2}"
            folder.mkdir(parents=True, exist_ok=True)
            values = np.full((40, 60 + i, 3), 40 + 150 * (i % 2), np.uint8)
            Image.fromarray(values).save(folder / f"{i}.png")
    settings = KnnSettings(k=(3,), size=32, aspect="native", workers=0)
    result = evaluate_knn("random:vit_mini_64", str(tmp_path / "train"), str(tmp_path / "val"), settings)
    assert result.scores["k=3"]["top1"] == 1.0
    assert result.facts["preprocessing"]["crop"].endswith("share of the longer side, down to a multiple of 8 px")


def test_gray_images_are_opened_for_a_gray_encoder(tmp_path, monkeypatch):
    for i in range(4):
        folder = tmp_path / f"class {i % 2}"
        folder.mkdir(exist_ok=True)
        Image.fromarray(np.full((40, 40, 3), 40 + 150 * (i % 2), np.uint8)).save(folder / f"{i}.png")
    encoder = Encoder(dataclasses.replace(SETTINGS, channels=1))
    model = Model(encoder, "gray", Normalisation((0.5,), (0.25,)), 64, None, "")
    monkeypatch.setattr(labelled, "open_model", lambda _: model)
    found = labelled.labelled_features(encoder, str(tmp_path), str(tmp_path), KnnSettings(workers=0))
    assert found.train.shape == (4, 192)
