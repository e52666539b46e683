"""The crops of InfoMin: RandAugment's older set on finished crops, and pieces of puzzles."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as pillow
from PIL import Image, ImageFilter, ImageOps
from scipy.stats import chisquare, kstest, norm
from timm.data.auto_augment import LEVEL_TO_ARG

from polygrain.data.boxes import piece_boxes
from polygrain.data.cutting import cut
from polygrain.data.draws import OLDER, Draws, draw
from polygrain.data.randaugment import OPERATIONS, Operation
from polygrain.data.recipes import switched_off
from polygrain.views import Crops
from tests.data.conftest import pixels
from tests.data.test_cutting import BYTES, draw_all
from tests.data.test_draws import is_rate, plain
from tests.data.test_randaugment import by_timm
from tests.references import make_infomin as made

REQUEST = Crops(name="query", count=6, size=64, scale=(0.2, 1.0), recipes=("infomin",))
PIECES = Crops(name="pieces", count=9, size=32, scale=(0.6, 1.0), recipes=("mae",), jigsaw=True)


def test_two_operations_are_drawn_with_replacement_each_as_likely() -> None:
    operations = plain("infomin", 12_000).numbers.operations
    both = operations[(operations >= 0).all(1)]
    assert is_rate((operations >= 0).all(1), 0.25)
    pairs = np.bincount(both[:, 0] * 15 + both[:, 1], minlength=225)
    assert chisquare(pairs).pvalue > 1e-3


def test_levels_are_normal_about_ten_cut_at_ten() -> None:
    numbers = plain("infomin", 12_000).numbers
    levels = np.abs(numbers.magnitudes[numbers.operations == OPERATIONS.index("Rotate")])
    assert is_rate(levels == 10, 0.5)
    assert kstest(levels[levels < 10], lambda x: norm.cdf(x, 10, 0.5) / 0.5).pvalue > 1e-3


def test_levels_mean_what_they_mean_in_the_authors_code() -> None:
    theirs = json.loads((Path(made.__file__).parent / "infomin.json").read_text())["operations"]
    named = {name.removesuffix("Tpu").removesuffix("Rel"): values for name, values in theirs.items()}
    assert {*named, "AutoContrast", "Equalize", "Invert"} == {*OPERATIONS}
    scales = {"Rotate": 30, "ShearX": 0.3, "ShearY": 0.3, "TranslateX": 0.45, "TranslateY": 0.45}
    for name, wanted in named.items():
        for level, argument in zip(made.LEVELS, wanted, strict=True):
            magnitude = OLDER[name](level) if name in OLDER else level
            if name in ("Posterize", "Solarize", "SolarizeAdd"):  # ours are timm's functions of these names
                ours = LEVEL_TO_ARG[name if name == "SolarizeAdd" else f"{name}Increasing"](magnitude, {})[0]
            elif name in scales:
                ours = magnitude / 10 * scales[name]
            else:
                ours = 1 + magnitude / 10 * 0.9  # factors of Color, Contrast, Brightness, Sharpness
            assert ours == pytest.approx(argument), (name, level)


def by_pillow(image: Image.Image, draws: Draws, crop: int, monkeypatch: pytest.MonkeyPatch) -> Image.Image:
    """Crop, flip, jitter, blur, RandAugment, gray: one operation of Pillow, torchvision or timm after another."""
    n = draws.numbers
    top, left, height, width = n.box[crop].tolist()
    image = image.crop((left, top, left + width, top + height))
    image = image.resize((64, height), Image.Resampling.BICUBIC).resize((64, 64), Image.Resampling.BICUBIC)
    if n.flipped[crop]:
        image = ImageOps.mirror(image)
    jitter = (pillow.adjust_brightness, pillow.adjust_contrast, pillow.adjust_saturation, pillow.adjust_hue)
    for kind in n.jitter_order[crop] if n.jittered[crop] else ():
        image = jitter[kind](image, float(n.jitter[crop, kind]))
    if n.blur[crop] > 0:
        image = image.filter(ImageFilter.GaussianBlur(float(n.blur[crop])))
    for kind, magnitude, bicubic in zip(n.operations[crop], n.magnitudes[crop], n.bicubic[crop], strict=True):
        if kind >= 0:
            image = by_timm(image, Operation(OPERATIONS[kind], float(magnitude), bool(bicubic)), monkeypatch)
    return pillow.to_grayscale(image, 3) if n.gray[crop] else image


def test_views_are_those_of_pillow_in_the_authors_order(
    photographs: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [pixels(image) for image in photographs]
    draws = draw_all([REQUEST], images)
    views = cut(images, draws, BYTES)["query"]
    means = []
    for b, image in enumerate(photographs):
        for crop, view in enumerate(views):
            expected = pixels(by_pillow(image, draws[b], crop, monkeypatch)).float()
            means.append(float((view.pixels[b] - expected).abs().mean()))
    # a strong hue, an equalised or solarised histogram may enlarge a rounding of the resized crop
    assert np.median(means) <= 0.05 and np.quantile(means, 0.9) <= 1.0


def test_gray_comes_last_so_gray_crops_have_three_equal_channels(photographs: list[Image.Image]) -> None:
    images = [pixels(image) for image in photographs]
    draws = draw_all([REQUEST], images)
    views = cut(images, draws, BYTES)["query"]
    gray = [views[c].pixels[b] for b, d in enumerate(draws) for c in range(6) if d.numbers.gray[c]]
    assert len(gray) > 5
    assert all(torch.equal(view[0], view[1]) and torch.equal(view[1], view[2]) for view in gray)


def test_recipes_that_augment_the_image_do_not_change_with_one_that_augments_crops() -> None:
    strong = Crops(name="strong", count=2, size=64, scale=(0.2, 1.0), recipes=("mugs_strong",))
    for image in range(30):
        alone, both = (draw(r, 90, 80, seed=0, epoch=0, image=image).numbers for r in ([strong], [strong, REQUEST]))
        assert np.array_equal(alone.magnitudes, both.magnitudes[:2]) and np.array_equal(
            alone.operations, both.operations[:2]
        )
        assert not alone.late.any() and both.late.tolist() == [False] * 2 + [True] * 6


def test_images_of_one_channel_keep_the_operations_that_make_sense() -> None:
    request = Crops(name="query", count=40, size=32, scale=(0.2, 1.0), recipes=("infomin",))
    image = torch.randint(0, 256, (1, 60, 50), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    numbers = draw([request], 60, 50, seed=0, epoch=0, image=0, channels=1)
    drawn = {OPERATIONS[k] for k in numbers.numbers.operations.ravel() if k >= 0}
    assert not drawn & {"Equalize", "Color", "Posterize"} and not numbers.numbers.gray.any()
    views = cut([image], [numbers], BYTES._replace(mean=(0.0,), std=(1 / 255,)))["query"]
    assert all(view.pixels.shape == (1, 1, 32, 32) for view in views)
    assert "RandAugment's Color" in switched_off("infomin", 1)


# --- puzzles


def puzzle(image: int, height: int = 300, width: int = 400) -> Draws:
    return draw([REQUEST, PIECES], height, width, seed=0, epoch=0, image=image)


def test_pieces_lie_each_in_a_cell_of_its_own_and_all_are_mirrored_or_none() -> None:
    for image in range(50):
        numbers = puzzle(image).numbers
        boxes, flipped = numbers.box[6:], numbers.flipped[6:]
        assert flipped.all() or not flipped.any()
        assert len({tuple(size) for size in boxes[:, 2:].tolist()}) == 1
        height, width = boxes[0, 2:] / (64 / 255)  # of the whole, to within rounding
        middles = boxes[:, :2] + boxes[:, 2:] / 2
        # cells are 85/255 of the whole; middles of pieces in a row of cells lie within 21/255 of each other
        for axis, side in enumerate((height, width)):
            sorted_middles = np.sort(middles[:, axis]).reshape(3, 3)
            assert (np.ptp(sorted_middles, axis=1) <= side * 21 / 255 + 2).all()
            assert (np.diff(sorted_middles[:, 1]) > side * 40 / 255).all()
        assert (boxes[:, :2] >= 0).all() and (boxes[:, :2] + boxes[:, 2:] <= (300, 400)).all()


def test_pieces_come_in_every_order() -> None:
    firsts = []
    for image in range(900):
        boxes = puzzle(image).numbers.box[6:]
        middle = boxes[:, :2] + boxes[:, 2:] / 2
        rows, columns = (np.argsort(np.argsort(middle[:, axis])) // 3 for axis in (0, 1))
        assert sorted(zip(rows, columns, strict=True)) == [(r, c) for r in range(3) for c in range(3)]
        firsts.append(3 * rows[0] + columns[0])
    assert chisquare(np.bincount(firsts, minlength=9)).pvalue > 1e-3


def test_a_piece_has_64_of_the_85_pixels_of_its_cell_and_any_place_there() -> None:
    whole = np.array([0, 0, 255, 255])
    cells = np.arange(9)
    low = piece_boxes(whole, cells, np.zeros((9, 2)))
    high = piece_boxes(whole, cells, np.full((9, 2), 0.9999))
    corners = [[85 * row, 85 * column] for row in range(3) for column in range(3)]
    assert low[:, :2].tolist() == corners and (low[:, 2:] == 64).all()
    assert (high[:, :2] - low[:, :2]).tolist() == [[21, 21]] * 9


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 5), (4, 3), (7, 40)])
def test_puzzles_of_tiny_images_stay_within_them(height: int, width: int) -> None:
    for image in range(30):
        boxes = puzzle(image, height, width).numbers.box[6:]
        assert (boxes[:, 2:] >= 1).all() and (boxes[:, :2] + boxes[:, 2:] <= (height, width)).all()


def test_crops_of_other_requests_do_not_change_beside_a_puzzle() -> None:
    alone = draw([REQUEST], 300, 400, seed=0, epoch=0, image=3).numbers
    beside = puzzle(3).numbers
    assert all(np.array_equal(a, b[:6]) for a, b in zip(alone, beside, strict=True))
