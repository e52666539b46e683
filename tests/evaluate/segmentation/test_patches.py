import pytest
import torch
import torch.nn.functional as F

from polygrain.evaluate.segmentation.patches import Segmented, patch_shares, segment, segmentation_probe


def shapes(n, *, classes=4, size=32, seed=0):
    """Masks of rectangles on a background of class 0."""
    random = torch.Generator().manual_seed(seed)
    masks = torch.zeros(n, size, size, dtype=torch.uint8)
    for mask in masks:
        for c in range(1, classes):
            top, left = torch.randint(0, size - size // 3, (2,), generator=random).tolist()
            mask[top : top + size // 3, left : left + size // 3] = c
    return masks


def oracle(masks, patch, classes=4):
    grid = (masks.shape[1] // patch, masks.shape[2] // patch)
    return Segmented(patch_shares(masks, grid, classes), masks, grid)


def test_shares_equal_counting_pixel_by_pixel():
    masks = torch.randint(0, 5, (2, 6, 8), generator=torch.Generator().manual_seed(0))
    shares = patch_shares(masks, (3, 2), 4, ignore=4)
    for image in range(2):
        for row in range(3):
            for column in range(2):
                cell = masks[image, 2 * row : 2 * row + 2, 4 * column : 4 * column + 4]
                expected = [(cell == c).sum().item() / 8 for c in range(4)]
                assert shares[image, 2 * row + column].tolist() == pytest.approx(expected)


def test_a_class_beyond_the_last_is_refused():
    with pytest.raises(ValueError, match="class 7"):
        patch_shares(torch.full((1, 4, 4), 7), (2, 2), 4)


def test_oracle_patches_reach_the_ceiling_that_the_patch_size_sets():
    train, val = shapes(48, size=64), shapes(16, size=64, seed=1)
    fine = segmentation_probe(oracle(train, 4), oracle(val, 4), classes=4, steps=200)
    coarse = segmentation_probe(oracle(train, 16), oracle(val, 16), classes=4, steps=200)
    assert fine["miou"] > 0.9
    assert coarse["miou"] < fine["miou"] - 0.2


def test_random_patches_find_little_more_than_the_background():
    random = torch.Generator().manual_seed(0)
    train = Segmented(torch.randn(48, 64, 8, generator=random), shapes(48), (8, 8))
    val = Segmented(torch.randn(16, 64, 8, generator=random), shapes(16, seed=1), (8, 8))
    background = (val.masks == 0).float().mean().item()
    assert segmentation_probe(train, val, classes=4, steps=100)["miou"] == pytest.approx(background / 4, abs=0.05)


def test_ignored_pixels_change_nothing():
    train, val = oracle(shapes(16), 4), oracle(shapes(8, seed=1), 4)
    plain = segmentation_probe(train, val, classes=4, steps=10)
    spoilt = val.masks.clone()
    spoilt[:, :2] = 255
    kept = segmentation_probe(train, val._replace(masks=spoilt), classes=4, steps=10, ignore=255)
    assert plain["pixel_accuracy"] != kept["pixel_accuracy"]  # two rows no longer count
    spoilt_train = train.masks.clone()
    spoilt_train[0] = 255
    without = Segmented(train.patches[1:], train.masks[1:], train.grid)
    shares = patch_shares(spoilt_train, train.grid, 4, ignore=255)
    assert shares[0].sum() == 0
    assert torch.equal(shares[1:], patch_shares(without.masks, train.grid, 4))


def test_renaming_classes_changes_no_score():
    train, val = oracle(shapes(24), 4), oracle(shapes(8, seed=1), 4)
    names = torch.tensor([2, 0, 3, 1])
    first = segmentation_probe(train, val, classes=4, steps=50)
    renamed = segmentation_probe(
        train._replace(masks=names[train.masks.long()]),
        val._replace(masks=names[val.masks.long()]),
        classes=4,
        steps=50,
    )
    assert renamed["miou"] == pytest.approx(first["miou"], abs=1e-3)


def test_the_same_seed_gives_the_same_number():
    train, val = oracle(shapes(16), 8), oracle(shapes(8, seed=1), 8)
    assert segmentation_probe(train, val, classes=4, steps=20) == segmentation_probe(train, val, classes=4, steps=20)


def test_logits_are_enlarged_bilinearly_before_the_largest_is_taken():
    head = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Identity())
    logits = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(0))
    maps = logits.reshape(2, 2, 3, 3).permute(0, 3, 1, 2)
    expected = F.interpolate(maps, size=(8, 12), mode="bilinear").argmax(1)
    assert torch.equal(segment(head, logits, (2, 3), (8, 12)), expected)
