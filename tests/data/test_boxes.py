import math

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp
from timm.data.random_erasing import RandomErasing
from torchvision.transforms import v2

from polygrain.data.boxes import erased_boxes, resized_crop_boxes

THREE_QUARTERS = np.array([[3 / 4, 4 / 3]])


def crop_boxes(count: int, scale: tuple[float, float], height: int, width: int, seed: int = 0) -> np.ndarray:
    u = np.random.default_rng(seed)
    shares = np.repeat([scale], count, axis=0)
    ratios = np.repeat(THREE_QUARTERS, count, axis=0)
    return resized_crop_boxes(
        u.random((count, 10)), u.random((count, 10)), u.random((count, 2)), shares, ratios, height, width
    )


def torchvision_boxes(count: int, scale: tuple[float, float], height: int, width: int) -> np.ndarray:
    torch.manual_seed(0)
    crop = v2.RandomResizedCrop(8, scale=scale)
    image = torch.zeros(1, height, width)
    drawn = [crop.make_params([image]) for _ in range(count)]
    return np.array([[p["top"], p["left"], p["height"], p["width"]] for p in drawn])


def torchvision_rule(area, ratio, place, scale, height: int, width: int) -> list[int]:
    """One box, as a loop over tries."""
    for u_area, u_ratio in zip(area, ratio, strict=True):
        target = height * width * (scale[0] + u_area * (scale[1] - scale[0]))
        aspect = math.exp(math.log(3 / 4) + u_ratio * (math.log(4 / 3) - math.log(3 / 4)))
        w, h = round(math.sqrt(target * aspect)), round(math.sqrt(target / aspect))
        if 0 < w <= width and 0 < h <= height:
            return [int(place[0] * (height - h + 1)), int(place[1] * (width - w + 1)), h, w]
    if width / height < 3 / 4:
        w, h = width, round(width / (3 / 4))
    elif width / height > 4 / 3:
        w, h = round(height * (4 / 3)), height
    else:
        w, h = width, height
    return [(height - h) // 2, (width - w) // 2, h, w]


@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.25, 1.0), (0.05, 0.25)])
@pytest.mark.parametrize("shape", [(375, 500), (640, 427), (64, 64)])
def test_boxes_are_distributed_as_those_of_torchvision(scale: tuple[float, float], shape: tuple[int, int]) -> None:
    count = 1500
    ours, theirs = crop_boxes(20_000, scale, *shape), torchvision_boxes(count, scale, *shape)
    for measure in (
        lambda top, left, h, w: h * w,
        lambda top, left, h, w: np.log(w / h),
        lambda top, left, h, w: top + h / 2,
        lambda top, left, h, w: left + w / 2,
        lambda top, left, h, w: top,
        lambda top, left, h, w: left,
    ):
        assert ks_2samp(measure(*ours.T), measure(*theirs.T)).pvalue > 1e-3


@pytest.mark.parametrize("shape", [(375, 500), (100, 900), (900, 100), (33, 32), (3, 2), (1, 1), (1, 40)])
def test_boxes_follow_the_rule_of_torchvision_number_for_number(shape: tuple[int, int]) -> None:
    u = np.random.default_rng(1)
    area, ratio, place = u.random((300, 10)), u.random((300, 10)), u.random((300, 2))
    scale = np.repeat([[0.3, 1.0]], 300, axis=0)
    ours = resized_crop_boxes(area, ratio, place, scale, np.repeat(THREE_QUARTERS, 300, axis=0), *shape)
    expected = [torchvision_rule(*numbers, (0.3, 1.0), *shape) for numbers in zip(area, ratio, place, strict=True)]
    assert ours.tolist() == expected


@pytest.mark.parametrize("shape", [(30, 3000), (3000, 30), (1, 5)])
def test_where_no_try_fits_the_box_is_that_of_torchvision(shape: tuple[int, int]) -> None:
    ours = crop_boxes(3, (1.0, 1.0), *shape)
    assert ours.tolist() == torchvision_boxes(3, (1.0, 1.0), *shape).tolist()


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (7, 700), (50, 40)])
def test_boxes_lie_inside_images_of_any_shape(shape: tuple[int, int]) -> None:
    top, left, height, width = crop_boxes(2000, (0.05, 1.0), *shape).T
    assert (top >= 0).all() and (left >= 0).all() and (height >= 1).all() and (width >= 1).all()
    assert (top + height <= shape[0]).all() and (left + width <= shape[1]).all()


def test_every_place_of_a_box_is_as_likely() -> None:
    top, left, height, width = crop_boxes(40_000, (0.25, 0.25), 12, 12).T
    six = (height == 6) & (width == 6)
    counts = np.bincount(top[six] * 7 + left[six], minlength=49)
    expected = six.sum() / 49
    assert ((counts - expected) ** 2 / expected).sum() < 85  # chi square of 48 degrees: 1 in 1000


def test_erased_boxes_are_distributed_as_those_of_timm() -> None:
    torch.manual_seed(0)
    erase = RandomErasing(1.0, mode="pixel", device="cpu")
    theirs = []
    for _ in range(1200):
        noise = erase(torch.zeros(1, 48, 48))[0] != 0
        rows, columns = noise.any(1).nonzero(), noise.any(0).nonzero()
        if len(rows):
            theirs.append([int(rows[0]), int(columns[0]), len(rows), len(columns)])
    u = np.random.default_rng(0)
    count = 20_000
    ours = erased_boxes(u.random((count, 10)), u.random((count, 10)), u.random((count, 2)), np.full(count, 48))
    for measure in (
        lambda top, left, h, w: h * w,
        lambda top, left, h, w: np.log(w / h),
        lambda top, left, h, w: top,
        lambda top, left, h, w: left,
    ):
        assert ks_2samp(measure(*ours.T), measure(*np.array(theirs).T)).pvalue > 1e-3


def test_erased_boxes_are_smaller_than_the_crop_and_inside_it() -> None:
    u = np.random.default_rng(0)
    size = np.full(5000, 20)
    top, left, height, width = erased_boxes(u.random((5000, 10)), u.random((5000, 10)), u.random((5000, 2)), size).T
    assert (height < 20).all() and (width < 20).all() and (height > 0).all()
    assert (top >= 0).all() and (top + height <= 20).all() and (left + width <= 20).all()
