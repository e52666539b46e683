from collections.abc import Callable

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as pillow
from PIL import Image, ImageFilter, ImageOps
from torch import Tensor

from polygrain.data import photometric
from polygrain.data.photometric import IMAGENET
from tests.data.conftest import pixels

SIZES = (96, 61)  # an odd one too


@pytest.fixture(scope="module", params=SIZES)
def crops(photographs: list[Image.Image], request: pytest.FixtureRequest) -> list[Image.Image]:
    return [image.resize((request.param, request.param), Image.Resampling.BICUBIC) for image in photographs]


def stacked(images: list[Image.Image]) -> Tensor:
    return torch.stack([pixels(image) for image in images]).float()


def column(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values).float().view(-1, 1, 1, 1)


def uniform(low: float, high: float, count: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(low, high, count)


@pytest.mark.parametrize(
    ("change", "reference"),
    [
        (photometric.brightness, pillow.adjust_brightness),
        (photometric.contrast, pillow.adjust_contrast),
        (photometric.saturation, pillow.adjust_saturation),
    ],
)
def test_factors_give_the_values_of_pillow(
    crops: list[Image.Image],
    change: Callable[[Tensor, Tensor], None],
    reference: Callable[[Image.Image, float], Image.Image],
) -> None:
    factors = uniform(0.2, 1.8, len(crops))
    stack = stacked(crops)
    change(stack, column(factors))
    expected = stacked([reference(crop, factor) for crop, factor in zip(crops, factors, strict=True)])
    assert torch.equal(stack, expected)


def test_a_factor_of_one_and_no_turn_change_no_brightness_contrast_or_saturation(crops: list[Image.Image]) -> None:
    stack, ones = stacked(crops), torch.ones(len(crops), 1, 1, 1)
    for change in (photometric.brightness, photometric.contrast, photometric.saturation):
        change(stack, ones)
    assert torch.equal(stack, stacked(crops))


def test_hue_turns_as_in_torchvision_up_to_rounding_of_rare_pixels(crops: list[Image.Image]) -> None:
    turns = uniform(-0.5, 0.5, len(crops))
    turns[:2] = (0.0, 0.1)
    stack = stacked(crops)
    photometric.hue(stack, column(turns))
    expected = stacked([pillow.adjust_hue(crop, turn) for crop, turn in zip(crops, turns, strict=True)])
    difference = (stack - expected).abs()
    assert difference.max() <= 6  # one step of 8-bit hue, where Pillow's double and our single precision round apart
    assert difference.mean() <= 0.01
    assert (difference > 0).float().mean() <= 0.01


def test_gray_and_solarised_crops_are_those_of_pillow(crops: list[Image.Image]) -> None:
    gray, solarised = stacked(crops), stacked(crops)
    photometric.grayscale(gray)
    photometric.solarise(solarised)
    assert torch.equal(gray, stacked([pillow.to_grayscale(crop, 3) for crop in crops]))
    assert torch.equal(solarised, stacked([ImageOps.solarize(crop, 128) for crop in crops]))


@pytest.mark.parametrize(("low", "high"), [(0.1, 1.4), (1.4, 2.0), (0.1, 2.0), (3.0, 6.0)])
def test_blurred_crops_are_those_of_pillow(crops: list[Image.Image], low: float, high: float) -> None:
    sigmas = uniform(low, high, len(crops))
    stack = stacked(crops)
    photometric.gaussian_blur(stack, photometric.box_radius(sigmas))
    expected = stacked([crop.filter(ImageFilter.GaussianBlur(float(s))) for crop, s in zip(crops, sigmas, strict=True)])
    difference = (stack - expected).abs()
    assert difference.max() <= 1
    assert (difference > 0).float().mean() <= 1e-4


def test_blur_spreads_a_point_with_the_variance_asked_for() -> None:
    stack = torch.zeros(1, 3, 41, 41)
    stack[..., 20, 20] = 1e6  # not cut to 255 by the blur, so rounding to whole numbers hardly matters
    photometric.gaussian_blur(stack, photometric.box_radius(np.array([1.7])))
    mass = stack[0, 0].double() / stack[0, 0].double().sum()
    offset = torch.arange(41.0) - 20
    assert float((mass.sum(0) * offset**2).sum()) == pytest.approx(1.7**2, rel=0.02)


def test_a_crop_comes_out_the_same_whatever_else_is_in_the_stack(crops: list[Image.Image]) -> None:
    factors, sigmas = uniform(0.6, 1.4, len(crops)), uniform(0.1, 2, len(crops))

    def change(stack: Tensor, rows: slice) -> Tensor:
        stack = stack[rows].clone()
        photometric.contrast(stack, column(factors[rows]))
        photometric.hue(stack, column(factors[rows] - 1))
        photometric.saturation(stack, column(factors[rows]))
        photometric.gaussian_blur(stack, photometric.box_radius(sigmas[rows]))
        return stack

    stack = stacked(crops)
    together = change(stack, slice(None))
    alone = torch.cat([change(stack, slice(i, i + 1)) for i in range(len(stack))])
    assert torch.equal(together, alone)


def test_normalised_values_are_those_of_torchvision(crops: list[Image.Image]) -> None:
    stack = stacked(crops)
    photometric.normalise(stack, IMAGENET)
    expected = torch.stack([pillow.normalize(pillow.to_tensor(crop), *IMAGENET) for crop in crops])
    torch.testing.assert_close(stack, expected, atol=1e-6, rtol=1e-6)
