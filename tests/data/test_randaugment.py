from typing import Any

import numpy as np
import pytest
import timm.data.auto_augment as timm_augment
import torch
from PIL import Image
from torch import Tensor

from polygrain.data.affine import needed, transform
from polygrain.data.boxes import Box, Part
from polygrain.data.randaugment import FILL, MATRICES, OPERATIONS, Operation, augment, needs

RESAMPLING = {False: Image.Resampling.BILINEAR, True: Image.Resampling.BICUBIC}
INCREASING = ("Posterize", "Solarize", "Color", "Contrast", "Brightness", "Sharpness")
MAGNITUDES = (0.4, 3.3, 8.2, 9.0, 9.7)
TWO = [*[(name, False) for name in OPERATIONS], *[(name, True) for name in MATRICES]]


def words(image: Image.Image) -> Tensor:
    """uint8 (H, W, 4)."""
    return torch.from_numpy(np.array(image.convert("RGBX")))


def whole(image: Tensor) -> Box:
    return Box(0, 0, image.shape[0], image.shape[1])


def by_timm(image: Image.Image, operation: Operation, monkeypatch: pytest.MonkeyPatch) -> Image.Image:
    name = {"TranslateX": "TranslateXRel", "TranslateY": "TranslateYRel"}.get(
        operation.name, operation.name + ("Increasing" if operation.name in INCREASING else "")
    )
    sign = -1 if operation.magnitude < 0 else 1
    monkeypatch.setattr(timm_augment, "_randomly_negate", lambda value: sign * value)
    level = timm_augment.LEVEL_TO_ARG[name]
    arguments: tuple[Any, ...] = level(abs(operation.magnitude), {}) if level else ()
    return timm_augment.NAME_TO_OP[name](image, *arguments, fillcolor=FILL, resample=RESAMPLING[operation.bicubic])


@pytest.mark.parametrize(("name", "bicubic"), TWO)
def test_operations_give_the_values_of_timm(
    name: str, bicubic: bool, photographs: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    for i, image in enumerate(photographs[:8]):
        operation = Operation(name, MAGNITUDES[i % 5] * (-1) ** i, bicubic)
        ours = augment(words(image), whole(words(image)), [operation])[..., :3].int()
        theirs = torch.from_numpy(np.array(by_timm(image, operation, monkeypatch))).int()
        difference = (ours - theirs).abs().float()
        if name in MATRICES:  # Pillow interpolates in double precision and rounds down
            assert difference.max() <= 1
            assert difference.mean() <= 0.1  # whole columns, where a translation lands on a multiple of 1/5, say
        else:
            assert difference.max() == 0


def test_all_operations_of_timms_policy_are_here() -> None:
    policy = timm_augment.rand_augment_transform("rand-m9-mstd0.5-inc1", {})
    names = {op.name.removesuffix("Increasing").removesuffix("Rel") for op in policy.ops}
    assert names == set(OPERATIONS)


def test_flat_and_extreme_images_survive_every_operation(monkeypatch: pytest.MonkeyPatch) -> None:
    two_valued = np.zeros((40, 30, 3), np.uint8)
    two_valued[:20] = (255, 7, 30)
    for array in (np.full((40, 30, 3), 77, np.uint8), two_valued, np.full((1, 1, 3), 200, np.uint8)):
        image = Image.fromarray(array)
        for name, bicubic in TWO:
            operation = Operation(name, 8.2, bicubic)
            ours = augment(words(image), whole(words(image)), [operation])[..., :3].int()
            theirs = torch.from_numpy(np.array(by_timm(image, operation, monkeypatch))).int()
            assert (ours - theirs).abs().max() <= 1, operation


@pytest.mark.parametrize("last", OPERATIONS)
@pytest.mark.parametrize("first", ["Rotate", "Sharpness", "Equalize", "ShearY"])
def test_a_box_shows_what_the_whole_augmented_image_has_there(
    first: str, last: str, photographs: list[Image.Image]
) -> None:
    image = words(photographs[5])
    height, width = image.shape[:2]
    operations = [Operation(first, 9.1, True), Operation(last, -8.8, False)]
    everything = augment(image, whole(image), operations)
    boxes = (Box(0, 0, 40, 50), Box(height - 30, width - 61, 30, 61), Box(37, 29, 90, 66), Box(5, 5, 1, 1))
    for box in boxes:
        part = augment(image, box, operations)
        there = everything[box.top : box.bottom, box.left : box.right]
        difference = (part[..., :3].int() - there[..., :3].int()).abs()
        assert difference.max() == 0


@pytest.mark.parametrize("name", sorted(MATRICES))
def test_no_more_of_the_source_is_needed_than_stated(name: str) -> None:
    height, width = 60, 80
    image = torch.randint(0, 256, (height, width, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for magnitude in (-9.3, 2.0, 10.0):
        matrix = MATRICES[name](magnitude, height, width)
        for box in (Box(0, 0, 20, 30), Box(33, 41, 27, 39), Box(50, 0, 10, 5)):
            source = needed(box, matrix, height, width)
            spoilt = torch.zeros_like(image)
            inner = slice(source.top, source.bottom), slice(source.left, source.right)
            spoilt[inner] = image[inner]
            full = Part(image, Box(0, 0, height, width), height, width)
            arguments = {"bicubic": True, "fill": FILL}
            expected = transform(full, box, matrix, **arguments)
            assert torch.equal(transform(full._replace(pixels=spoilt), box, matrix, **arguments), expected)
            part = Part(image[inner].contiguous(), source, height, width)
            assert torch.equal(transform(part, box, matrix, **arguments), expected)


def test_operations_that_look_at_single_pixels_need_no_more_than_the_box() -> None:
    box = Box(3, 4, 20, 10)
    for name in ("Invert", "Posterize", "Solarize", "SolarizeAdd", "Brightness", "Color"):
        assert needs(box, Operation(name, 9.0, False), 100, 100) == box
    assert needs(box, Operation("Sharpness", 9.0, False), 23, 100) == Box(2, 3, 21, 12)
    assert needs(box, Operation("Equalize", 9.0, False), 100, 90) == Box(0, 0, 100, 90)


def test_an_image_that_is_already_flat_stays_so_under_rotation() -> None:
    image = torch.tensor([*FILL, 0], dtype=torch.uint8).expand(50, 70, 4).contiguous()
    turned = augment(image, whole(image), [Operation("Rotate", 7.7, True)])
    assert torch.equal(turned[..., :3], image[..., :3])
