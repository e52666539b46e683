import colorsys

import numpy as np
import pytest
import torch

from polygrain.data.masks import open_masked
from polygrain.data.photometric import Normalisation
from polygrain.evaluate.segmentation.crops import Crops, distorted, saturated
from polygrain.evaluate.segmentation.sets import VOID, Truth, classes_of
from tests.evaluate.segmentation.shapes import COLOURS, write

AS_IS = Normalisation((0.0,) * 3, (1 / 255,) * 3)


def crops(root, count=8, *, size=32, crop=24, colours=False, images=4):
    masked = open_masked(write(root, images) if not root.exists() else root)
    table, _ = classes_of(np.arange(4), None, count=4, ignore=255, reduce_zero_label=False)
    return Crops(Truth(masked, table), count, size=size, crop=crop, normalisation=AS_IS, seed=0, colours=colours)


def test_image_and_mask_go_through_the_same_cut_and_mirror(tmp_path):
    for pixels, classes in map(crops(tmp_path / "set").__getitem__, range(8)):
        assert pixels.shape == (3, 24, 24)
        assert classes.shape == (24, 24)
        filled = classes != VOID
        distance = (
            (pixels[:, None] - torch.from_numpy(COLOURS).float().T[:, :, None, None]).square().sum(0)
        )  # (4, h, w)
        assert (distance.argmin(0) == classes)[filled].float().mean() > 0.9  # all but the mixed colours at edges


def test_a_crop_depends_on_seed_and_place_alone(tmp_path):
    first, second = crops(tmp_path / "set", colours=True), crops(tmp_path / "set", colours=True)
    in_another_order = {i: second[i] for i in (5, 2, 0)}
    for i, (pixels, classes) in in_another_order.items():
        assert torch.equal(first[i][0], pixels)
        assert torch.equal(first[i][1], classes)
    assert not torch.equal(first[0][0], first[4][0])  # another epoch


def test_what_the_image_does_not_fill_is_void(tmp_path):
    found = crops(tmp_path / "set", size=16, crop=40)
    for i in range(4):
        pixels, classes = found[i]
        side = int((classes != VOID).any(0).sum())
        assert 8 <= side <= 32
        assert (classes[:side, :side] != VOID).all()
        assert (classes[side:] == VOID).all()
        assert (pixels[:, side:] == 0).all()


def test_every_epoch_shows_every_image_once(tmp_path):
    found = crops(tmp_path / "set", count=12)
    seen = []
    load = found.truth.masked.image
    found.truth.masked.image = lambda i: seen.append(i) or load(i)
    for i in range(12):
        found[i]
        assert found.name(i) == f"images/{seen[-1]:03}.png"
    assert [sorted(seen[start : start + 4]) for start in (0, 4, 8)] == [[0, 1, 2, 3]] * 3


def test_colours_are_left_alone_at_times_and_changed_at_others():
    image = torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    same = [torch.equal(distorted(image, np.random.default_rng(i)), image) for i in range(200)]
    assert 2 <= sum(same) <= 30  # 1 in 16 on average


def distorted_often(colour):
    image = torch.tensor(colour, dtype=torch.uint8)[:, None, None]
    return [distorted(image, np.random.default_rng(i)).flatten().tolist() for i in range(500)]


def test_hue_moves_by_up_to_a_tenth_of_the_circle():
    turns = [colorsys.rgb_to_hsv(*(v / 255 for v in found))[0] for found in distorted_often([120, 40, 40])]
    turns = [turn - 1 if turn > 0.5 else turn for turn in turns]
    assert -0.11 < min(turns) < -0.09
    assert 0.09 < max(turns) < 0.11  # 18 of 180 steps, and what rounding adds


def test_brightness_is_added_and_contrast_multiplies():
    values = [found[0] for found in distorted_often([100, 100, 100])]  # saturation and hue leave gray alone
    assert 34 <= min(values) < 45  # (100 - 32) * 0.5
    assert 185 < max(values) <= 198  # (100 + 32) * 1.5


@pytest.mark.parametrize("factor", [0.5, 0.9, 1.5])
def test_saturation_is_that_of_hsv(factor):
    image = torch.randint(0, 256, (3, 20, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    image[:, 0, 0], image[:, 0, 1], image[:, 0, 2] = 0, 255, torch.tensor([255, 0, 0])
    found = saturated(image, factor).flatten(1).T.tolist()
    for (red, green, blue), got in zip(image.flatten(1).T.tolist(), found, strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(red / 255, green / 255, blue / 255)
        expected = colorsys.hsv_to_rgb(hue, min(1.0, factor * saturation), value)
        assert got == pytest.approx([255 * v for v in expected], abs=0.501)
