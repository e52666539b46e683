import io
import re

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from polygrain.data.photometric import IMAGENET, Normalisation
from polygrain.evaluate.pixels import RawPixels
from polygrain.parts.encoder import Encoder, EncoderSettings, Features
from polygrain.report.matches import by_distance, draw_matches, png, to_pixels
from polygrain.report.pairs import Shown, in_words, look
from polygrain.views import Crops, View, patch_centres

CROPS = (
    Crops(name="large", count=2, size=32, scale=(0.3, 1.0), recipes=("byol_a", "byol_b")),
    Crops(name="small", count=3, size=16, scale=(0.05, 0.3), recipes=("byol_a",)),
)


def image(height: int, width: int) -> Tensor:
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def looked(number: int, kept: int = 6, shared: bool = False) -> Shown:
    return look(
        RawPixels(patch_size=8),
        image(50, 70),
        CROPS,
        seed=0,
        number=number,
        normalisation=IMAGENET,
        project=None,
        kept=kept,
        shared=shared,
    )


@pytest.mark.parametrize("number", range(6))
def test_matches_by_location_lie_closer_in_the_image_than_any_other_pair(number: int) -> None:
    shown = looked(number)
    first, second = (
        patch_centres(view.box, view.flipped, *grid)[0] for view, grid in zip(shown.pair, shown.grids, strict=True)
    )
    distances = (first[:, None] - second).square().sum(-1).sqrt()  # (P, Q), by hand
    best, where = distances.min(1)
    inputs, candidates = (index[0] for index in shown.matches["location"])
    assert set(inputs.tolist()) == set(best.argsort(stable=True)[:6].tolist())
    assert candidates.tolist() == where[inputs].tolist()


def test_no_more_matches_are_shown_than_there_are_patches() -> None:
    assert [matches.inputs.shape for matches in looked(0, kept=99).matches.values()] == [(1, 16), (1, 16)]


def test_the_picture_grows_with_the_images_and_is_a_png() -> None:
    images = [image(50, 70), image(90, 40)]
    sizes = []
    for count in (1, 2):
        figure = draw_matches(RawPixels(patch_size=8), images[:count], CROPS, kept=5)
        picture = Image.open(io.BytesIO(png(figure, dots_per_inch=30)))
        assert picture.format == "PNG"
        sizes.append(picture.size)
    assert sizes[0][0] == sizes[1][0] == 15 * 30
    assert sizes[1][1] > 1.5 * sizes[0][1]


def test_among_patches_that_both_crops_show_every_match_by_place_is_within_half_a_cell() -> None:
    """Whoever finds a centre inside the other crop finds a patch there at most half a cell away in each axis."""
    outside = 0
    for number in range(6):
        shown = looked(number, kept=99, shared=True)
        _, second = shown.pair
        centres = [
            patch_centres(view.box, view.flipped, *grid)[0] for view, grid in zip(shown.pair, shown.grids, strict=True)
        ]
        cell = second.box[0, 2:] / torch.tensor(shown.grids[1])
        inputs, candidates = (index[0] for index in shown.matches["location"])
        assert ((centres[0][inputs] - centres[1][candidates]).abs() <= cell / 2 + 1e-3).all()
        assert shown.matches["feature"].inputs[0].tolist() == inputs.tolist()
        outside += 16 - len(inputs)
    assert outside > 0


def test_lines_are_coloured_by_their_distance() -> None:
    colours = by_distance(np.array([0.2, 0.8, 0.5, 0.2], np.float32))
    assert np.array_equal(colours[0], colours[3])
    blue, red = colours[0], colours[1]
    assert blue[2] > blue[0]
    assert red[0] > red[2]
    assert by_distance(np.array([3.0, 3.0])).tolist() == [blue.tolist()] * 2
    assert by_distance(np.array([])).shape == (0, 4)


class Places:
    """Patches that tell where they lie in the source image, as a coordinate in each pixel does."""

    def features(self, pixels: Tensor) -> Features:
        patches = torch.nn.functional.avg_pool2d(pixels[:, :2], 8).flatten(2).transpose(1, 2)
        return Features(patches.mean(1), patches, patches.mean(1), (pixels.shape[2] // 8, pixels.shape[3] // 8))


def test_patches_that_know_their_place_all_find_it_and_equal_ones_by_chance() -> None:
    rows, columns = torch.meshgrid(torch.arange(200), torch.arange(200), indexing="ij")
    where = torch.stack([rows, columns, 0 * rows]).to(torch.uint8)
    crops = [Crops(name="a", count=2, size=64, scale=(0.5, 1.0), recipes=("mae",))]
    plain = Normalisation((0.0,) * 3, (1.0,) * 3)
    shown = [
        look(Places(), where, crops, seed=0, number=i, normalisation=plain, project=None, kept=9, shared=True)
        for i in range(4)
    ]
    told = in_words(shown)
    inside = sum(int(one.true.inside.sum()) for one in shown)
    assert f"Of the {inside} patches that both crops of 4 images show" in told
    assert "100% within 1 (chance" in told
    alike = [one._replace(distances={"feature": torch.zeros_like(one.distances["feature"])}) for one in shown]
    (right, by_chance), *_ = re.findall(r"(\d+)% within 2 \(chance (\d+)%\)", in_words(alike))
    assert 15 < int(by_chance) < 40  # 25 of 64 cells, fewer at the borders
    assert int(right) < 20  # the first cell of all is taken


@pytest.mark.parametrize("channels", [1, 5])
def test_images_of_any_channels_are_drawn_as_thumbnails_are(channels: int) -> None:
    """The crop shows the first three channels, or the first as grey: what numpy takes out of the pixels."""
    pictures = torch.randint(0, 256, (channels, 50, 70), dtype=torch.uint8)
    arguments = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2}
    encoder = Encoder(EncoderSettings(name="vit_tiny_patch16_224", channels=channels, arguments=arguments)).eval()
    normalisation = Normalisation((0.4,) * channels, (0.2,) * channels)
    crops = [Crops(name="a", count=2, size=32, scale=(0.3, 1.0), recipes=("byol_a", "byol_b"))]
    figure = draw_matches(encoder, [pictures], crops, normalisation=normalisation, kept=4)
    assert png(figure, dots_per_inch=20)[1:4] == b"PNG"
    pixels = torch.rand(1, channels, 6, 6)
    view = View(normalised(pixels, normalisation), *(torch.zeros(1),) * 4)
    first = pixels[0].permute(1, 2, 0).numpy()
    expected = first[..., :3] if channels > 2 else np.repeat(first, 3, 2)
    assert np.abs(to_pixels(view, normalisation) - expected).max() < 1e-6


def normalised(pixels: Tensor, normalisation: Normalisation) -> Tensor:
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in normalisation)
    return (pixels - mean) / std


def test_a_single_large_view_cannot_be_matched() -> None:
    crops = [Crops(name="a", count=1, size=32, scale=(0.3, 1.0), recipes=("byol_a",))]
    with pytest.raises(ValueError, match=r"two views of the largest size \(32 px\); these crops have 1"):
        draw_matches(RawPixels(patch_size=8), [image(40, 40)], crops)
