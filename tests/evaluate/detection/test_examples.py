import numpy as np
import pytest
import torch

from polygrain.data.coco import CocoImages, Truth
from polygrain.evaluate.detection import examples
from polygrain.evaluate.detection.examples import Examples, batches, cut, jittered, mirrored, resized
from tests.evaluate.detection import rectangles


def box_of(mask):
    rows, columns = np.nonzero(mask.numpy())
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def one_object():
    masks = torch.zeros(1, 60, 80, dtype=torch.uint8)
    masks[0, 10:30, 5:25] = 1
    pixels = masks.float().expand(3, -1, -1)
    return pixels, Truth(torch.tensor([[5.0, 10, 25, 30]]), torch.tensor([1]), masks)


def test_boxes_and_masks_are_mirrored_with_the_pixels():
    pixels, truth = mirrored(*one_object())
    assert truth.boxes[0].tolist() == box_of(truth.masks[0]) == [55, 10, 75, 30]
    assert torch.equal(pixels[0], truth.masks[0].float())


def test_boxes_and_masks_are_resized_with_the_pixels():
    pixels, truth = resized(*one_object(), 120)
    assert pixels.shape == (3, 120, 160) and truth.masks.shape == (1, 120, 160)
    assert truth.boxes[0].tolist() == box_of(truth.masks[0]) == [10, 20, 50, 60]


def test_boxes_and_masks_are_cut_with_the_pixels():
    pixels, truth = resized(*one_object(), 700)
    for seed in range(5):
        part, left = cut(pixels, truth, np.random.default_rng(seed))
        assert all(384 <= side <= 600 for side in part.shape[1:])
        assert left.masks.shape[1:] == part.shape[1:]
        for box, mask in zip(left.boxes, left.masks, strict=True):
            assert box.tolist() == pytest.approx(box_of(mask), abs=1)
        if not len(left.boxes):
            assert part.sum() < 1e-3 * pixels.sum() + 1


@pytest.mark.parametrize(("scale", "side"), [(0.1, 8), (0.5, 40), (1.0, 80), (2.0, 160)])
def test_large_scale_jitter_brings_the_long_side_to_a_tenth_up_to_twice_the_square(monkeypatch, scale, side):
    monkeypatch.setattr(examples, "JITTER", (scale, scale))
    pixels, truth = jittered(torch.ones(3, 60, 80), one_object()[1], 80, np.random.default_rng(0))
    assert pixels.shape == (3, 80, 80) and truth.masks.shape[1:] == (80, 80)
    shown = (pixels[0] - 1).abs() < 1e-5  # the rest is grey
    assert (pixels[0][~shown] == 0.5).all()
    high, wide = min(80, round(60 * scale)), min(80, side)
    assert shown[:high, :wide].all() and shown.sum() == high * wide


def test_large_scale_jitter_draws_from_a_tenth_to_twice_the_square():
    found = [jittered(torch.ones(3, 80, 80), one_object()[1], 80, np.random.default_rng(i))[0] for i in range(200)]
    shares = torch.stack([(one[0, 0] == 1).sum() / 80 for one in found])
    assert shares.min() < 0.15 and shares.max() == 1
    assert (shares == 1).float().mean().item() == pytest.approx((2 - 1) / (2 - 0.1), abs=0.1)


def test_boxes_and_masks_are_jittered_with_the_pixels():
    seen = 0
    for seed in range(20):
        pixels, truth = jittered(*one_object(), 120, np.random.default_rng(seed))
        for box, mask in zip(truth.boxes, truth.masks, strict=True):
            seen += 1
            assert box.tolist() == pytest.approx(box_of(mask), abs=1)
            assert mask.float().mean() == pytest.approx(((pixels[0] - 0.5) > 0).float().mean().item(), rel=0.3)
    assert seen > 10


def test_every_epoch_shows_every_image_once(tmp_path):
    images = CocoImages(*rectangles.write(tmp_path / "train", 12))
    loader = batches(Examples(images, crop=False, seed=0), [1, 4, 7, 9], steps=4, images_per_step=2, workers=0)
    places = [place for batch in loader.batch_sampler for place in batch]
    assert sorted(places) == [(epoch, position) for epoch in (0, 1) for position in (1, 4, 7, 9)]
