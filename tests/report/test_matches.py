import io

import pytest
import torch
from PIL import Image
from torch import Tensor

from polygrain.data.photometric import IMAGENET
from polygrain.evaluate.pixels import RawPixels
from polygrain.report.matches import Shown, draw_matches, look, png
from polygrain.views import Crops, patch_centres

CROPS = (
    Crops(name="large", count=2, size=32, scale=(0.3, 1.0), recipes=("byol_a", "byol_b")),
    Crops(name="small", count=3, size=16, scale=(0.05, 0.3), recipes=("byol_a",)),
)


def image(height: int, width: int) -> Tensor:
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def looked(number: int, kept: int = 6) -> Shown:
    return look(
        RawPixels(patch_size=8),
        image(50, 70),
        CROPS,
        seed=0,
        number=number,
        normalisation=IMAGENET,
        project=None,
        kept=kept,
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


def test_a_single_large_view_cannot_be_matched() -> None:
    crops = [Crops(name="a", count=1, size=32, scale=(0.3, 1.0), recipes=("byol_a",))]
    with pytest.raises(ValueError, match=r"two views of the largest size \(32 px\); these crops have 1"):
        draw_matches(RawPixels(patch_size=8), [image(40, 40)], crops)
