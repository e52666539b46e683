from collections.abc import Sequence

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as pillow
from PIL import Image, ImageFilter, ImageOps
from torch import Tensor

from polygrain.data import recipes
from polygrain.data.cutting import cut, resize, resize_in_floats
from polygrain.data.draws import Draws, draw
from polygrain.data.photometric import IMAGENET, Normalisation
from polygrain.data.randaugment import OPERATIONS, Operation
from polygrain.data.recipes import Recipe
from polygrain.views import Crops, View, patch_centres
from tests.data.conftest import pixels
from tests.data.test_randaugment import by_timm, words

BYTES = Normalisation((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))  # leaves 0..255 as they are
WEAK = (
    Crops(name="large", count=2, size=64, scale=(0.25, 1.0), recipes=("byol_a", "byol_b")),
    Crops(name="small", count=3, size=32, scale=(0.05, 0.25), recipes=("dino_local",)),
)
MUGS = (
    WEAK[0],
    Crops(
        name="student",
        count=2,
        size=64,
        scale=(0.25, 1.0),
        recipes=("dino_1", "dino_2"),
        strong_recipe="mugs_strong",
        strong_probability=0.5,
        strong_together=True,
    ),
    Crops(
        name="small",
        count=6,
        size=32,
        scale=(0.05, 0.25),
        recipes=("dino_local",),
        strong_recipe="mugs_strong",
        strong_probability=0.5,
    ),
)


def draw_all(requests: Sequence[Crops], images: Sequence[Tensor], epoch: int = 0) -> list[Draws]:
    shapes = [image.shape[1:] for image in images]
    return [draw(requests, *shape, seed=0, epoch=epoch, image=i) for i, shape in enumerate(shapes)]


def listed(views: dict[str, list[View]]) -> list[View]:
    return [view for crops in views.values() for view in crops]


def by_pillow(image: Image.Image, draws: Draws, crop: int, monkeypatch: pytest.MonkeyPatch) -> Image.Image:
    """One crop before noise and normalisation, one operation of Pillow, torchvision or timm after another."""
    n = draws.numbers
    top, left, height, width = n.box[crop].tolist()
    for kind, magnitude, bicubic in zip(n.operations[crop], n.magnitudes[crop], n.bicubic[crop], strict=True):
        if kind >= 0:
            image = by_timm(image, Operation(OPERATIONS[kind], float(magnitude), bool(bicubic)), monkeypatch)
    size = [request.size for request in draws.requests for _ in range(request.count)][crop]
    image = image.crop((left, top, left + width, top + height))
    # in two steps: the classic order of Pillow's resizing, which newer ones leave for some tall images
    image = image.resize((size, height), Image.Resampling.BICUBIC).resize((size, size), Image.Resampling.BICUBIC)
    if n.flipped[crop]:
        image = ImageOps.mirror(image)
    jitter = (pillow.adjust_brightness, pillow.adjust_contrast, pillow.adjust_saturation, pillow.adjust_hue)
    for kind in n.jitter_order[crop] if n.jittered[crop] else ():
        image = jitter[kind](image, float(n.jitter[crop, kind]))
    if n.gray[crop]:
        image = pillow.to_grayscale(image, 3)
    if n.blur[crop] > 0:
        image = image.filter(ImageFilter.GaussianBlur(float(n.blur[crop])))
    return ImageOps.solarize(image, 128) if n.solarised[crop] else image


@pytest.mark.parametrize("size", [32, 64, 100])
def test_resized_crops_are_those_of_pillow(size: int, photographs: list[Image.Image]) -> None:
    for image in photographs:
        width, height = image.size
        box = (width // 5, height // 4, width - width // 6, height // 4 + height // 2)
        crop = image.crop(box)
        crop = crop if crop.width >= crop.height else crop.transpose(Image.Transpose.ROTATE_90)
        expected = pixels(crop.resize((size, size), Image.Resampling.BICUBIC)).float()
        for resized in (resize(words(crop), size)[:3].float(), resize_in_floats(words(crop), size)[:3]):
            difference = (resized - expected).abs()
            assert difference.max() <= 2
            assert difference.mean() <= 0.02


def test_bytes_and_floats_are_resized_to_the_same_values(photographs: list[Image.Image]) -> None:
    for image in photographs:
        difference = (resize(words(image), 64).float() - resize_in_floats(words(image), 64)).abs()
        assert difference.max() <= 2
        assert difference.mean() <= 0.02


def test_views_are_those_of_pillow_given_the_same_numbers(
    photographs: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [pixels(image) for image in photographs]
    draws = draw_all(MUGS, images)
    views = listed(cut(images, draws, BYTES))
    differences = []
    for b, image in enumerate(photographs):
        for crop, view in enumerate(views):
            if draws[b].numbers.erased[crop, 2]:
                continue
            expected = pixels(by_pillow(image, draws[b], crop, monkeypatch)).float()
            differences.append((view.pixels[b] - expected).abs())
    means = torch.tensor([float(difference.mean()) for difference in differences])
    assert len(means) > 80
    assert means.mean() <= 0.05  # of 255; what rounding leaves
    # Hue, solarised gray levels and equalised histograms may enlarge a rounding
    assert means.max() <= 0.5
    assert torch.quantile(torch.cat([d.flatten() for d in differences])[::7], 0.999) <= 2


def test_a_view_does_not_depend_on_what_else_is_in_the_batch(photographs: list[Image.Image]) -> None:
    images = [pixels(image) for image in photographs[3:9]]
    draws = draw_all(MUGS, images)
    together = listed(cut(images, draws, IMAGENET))
    for part in (slice(0, 1), slice(4, 6), slice(2, 5)):
        apart = listed(cut(images[part], draws[part], IMAGENET))
        for a, b in zip(together, apart, strict=True):
            assert all(torch.equal(x[part], y) for x, y in zip(a[:5], b[:5], strict=True))


def test_a_view_does_not_depend_on_how_the_image_lies_in_memory(photographs: list[Image.Image]) -> None:
    image = pixels(photographs[0])
    channels_last = image.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    draws = draw_all(MUGS, [image])
    for a, b in zip(listed(cut([image], draws, IMAGENET)), listed(cut([channels_last], draws, IMAGENET)), strict=True):
        assert torch.equal(a.pixels, b.pixels)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_views_are_the_same_on_a_gpu(photographs: list[Image.Image]) -> None:
    images = [pixels(image) for image in photographs]
    draws = draw_all(MUGS, images)
    on_cpu = listed(cut(images, draws, BYTES))
    on_gpu = listed(cut([image.cuda() for image in images], draws, BYTES))
    for a, b in zip(on_cpu, on_gpu, strict=True):
        assert b.pixels.is_cuda
        difference = (a.pixels - b.pixels.cpu()).abs()
        assert difference.mean() <= 0.1
        assert all(torch.equal(x, y.cpu()) for x, y in zip(a[1:], b[1:], strict=True))


def test_views_carry_what_was_drawn() -> None:
    images = [torch.zeros(3, 40, 50, dtype=torch.uint8), torch.zeros(3, 31, 20, dtype=torch.uint8)]
    draws = [draw(MUGS, *image.shape[1:], seed=0, epoch=2, image=i) for image, i in zip(images, (7, 11), strict=True)]
    views = cut(images, draws, IMAGENET)
    assert [(name, len(crops)) for name, crops in views.items()] == [("large", 2), ("student", 2), ("small", 6)]
    for crop, view in enumerate(listed(views)):
        assert view.pixels.shape == (2, 3, *(2 * ([64] * 4 + [32] * 6)[crop : crop + 1]))
        assert view.pixels.dtype == torch.float32
        assert view.image.tolist() == [7, 11]
        for b in range(2):
            assert view.box[b].tolist() == draws[b].numbers.box[crop].tolist()
            assert bool(view.flipped[b]) == draws[b].numbers.flipped[crop]
            assert bool(view.strong[b]) == draws[b].numbers.strong[crop]


def test_patch_centres_lie_where_the_crop_was_cut_flips_included(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(recipes.RECIPES, "plain", Recipe())
    height, width = 180, 250
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    image[0] = torch.arange(height)[:, None]  # every pixel says where it is
    image[1] = torch.arange(width)
    request = Crops(name="crops", count=40, size=64, scale=(0.1, 1.0), recipes=("plain",))
    views = cut([image], draw_all([request], [image]), BYTES)["crops"]
    assert 5 < sum(bool(view.flipped) for view in views) < 35
    for view in views:
        shown = torch.nn.functional.avg_pool2d(view.pixels[:, :2], 16)  # (1, 2, 4, 4) mean y, x of 16 patches
        centres = patch_centres(view.box, view.flipped, 4, 4)  # (1, 16, 2)
        error = shown.flatten(2).transpose(1, 2) + 0.5 - centres
        assert error.abs().max() < 0.6  # values are whole numbers, and pixels beyond the box are not known


def test_images_smaller_than_the_crop_and_very_long_ones_can_be_cut() -> None:
    shapes = ((1, 1), (5, 3), (20, 900), (700, 9))
    images = [torch.full((3, *shape), 90, dtype=torch.uint8) for shape in shapes]
    for epoch in range(3):
        for view in listed(cut(images, draw_all(WEAK, images, epoch), BYTES)):
            assert view.pixels.isfinite().all()
            assert (view.pixels >= 0).all() and (view.pixels <= 255).all()


def test_erased_pixels_have_the_mean_and_deviation_of_the_official_loader() -> None:
    request = Crops(name="crops", count=300, size=64, scale=(0.25, 1.0), recipes=("mugs_strong",))
    image = torch.full((3, 80, 80), 128, dtype=torch.uint8)
    draws = draw_all([request], [image])
    views = cut([image], draws, IMAGENET)["crops"]
    boxes = draws[0].numbers.erased
    noise = torch.cat(
        [
            view.pixels[0, :, top : top + height, left : left + width].flatten(1)
            for view, (top, left, height, width) in zip(views, boxes, strict=True)
        ],
        dim=1,
    )
    assert noise.shape[1] > 30_000
    torch.testing.assert_close(noise.mean(1), torch.tensor([-2.12, -2.04, -1.80]), atol=0.08, rtol=0)
    torch.testing.assert_close(noise.std(1), torch.tensor([4.37, 4.46, 4.44]), atol=0.06, rtol=0)
    untouched = [v.pixels for v, box in zip(views, boxes, strict=True) if not box[2]]
    assert max(float(p.abs().max()) for p in untouched) < 2.7  # nothing beyond normalised black and white


def test_weak_views_stay_within_bytes(photographs: list[Image.Image]) -> None:
    images = [pixels(image) for image in photographs]
    for view in listed(cut(images, draw_all(WEAK, images), BYTES)):
        values = view.pixels.round()
        torch.testing.assert_close(view.pixels, values, atol=1e-3, rtol=0)
        assert values.min() >= 0 and values.max() <= 255


def test_numpy_and_torch_randomness_are_left_alone() -> None:
    image = torch.zeros(3, 40, 40, dtype=torch.uint8)
    torch_before, numpy_before = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    cut([image], draw_all(MUGS, [image]), IMAGENET)
    assert torch.equal(torch.random.get_rng_state(), torch_before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002
