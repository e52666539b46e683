import shutil

import numpy as np
import pytest
from PIL import Image

from polygrain.evaluate.segmentation.sets import OUTSIDE, VOID, classes_of, open_sets
from polygrain.evaluate.settings.segmentation import SegmentationSettings
from tests.evaluate.segmentation.shapes import write

IDS = np.arange(4)


def opened(root, val=None, **settings):
    return open_sets(root, val or root, None, 3, SegmentationSettings(**settings))


def test_ids_are_classes_and_255_is_void():
    table, names = classes_of(np.array([0, 1, 2, 255]), None, count=None, ignore=255, reduce_zero_label=False)
    assert table[[0, 1, 2, 255]].tolist() == [0, 1, 2, VOID]
    assert table[3] == OUTSIDE
    assert names == ("0", "1", "2")


def test_an_ignored_id_in_the_middle_leaves_no_gap():
    table, names = classes_of(IDS, ("a", "b", "c", "d"), count=None, ignore=1, reduce_zero_label=False)
    assert table[:4].tolist() == [0, VOID, 1, 2]
    assert names == ("a", "c", "d")


def test_reducing_the_zero_label_moves_all_ids_down():
    table, names = classes_of(IDS, ("wall", "sky", "floor"), count=None, ignore=255, reduce_zero_label=True)
    assert table[[0, 1, 2, 3, 255]].tolist() == [VOID, 0, 1, 2, VOID]
    assert names == ("wall", "sky", "floor")


def test_told_classes_and_named_classes_must_agree():
    with pytest.raises(ValueError, match=r"classes is 3, but classes\.json names 2"):
        classes_of(IDS, ("a", "b"), count=3, ignore=255, reduce_zero_label=False)


def test_one_class_is_nothing_to_tell_apart():
    with pytest.raises(ValueError, match="there are 1 classes"):
        classes_of(np.array([0, 255]), None, count=None, ignore=255, reduce_zero_label=False)


def test_an_id_out_of_range_is_named_with_its_image(tmp_path):
    write(tmp_path, 3)
    with pytest.raises(ValueError, match=r"the mask of 'images/000.png' holds id 3; the 3 classes are 0 to 2, and 255"):
        opened(tmp_path, classes=3)


def test_sizes_that_disagree_are_named(tmp_path):
    write(tmp_path, 2)
    Image.fromarray(np.zeros((16, 32), np.uint8)).save(tmp_path / "masks" / "001.png")
    with pytest.raises(ValueError, match=r"'images/001.png' is 32x32 pixels and its mask 32x16"):
        opened(tmp_path)


def test_a_mask_that_lies_on_its_side_is_refused_when_it_is_read(tmp_path):
    write(tmp_path, 2)
    Image.new("RGB", (32, 16)).save(tmp_path / "images" / "001.png")
    Image.fromarray(np.zeros((32, 16), np.uint8)).save(tmp_path / "masks" / "001.png")
    with pytest.raises(ValueError, match="is 32x16 pixels and its mask 16x32"):
        opened(tmp_path).train.pair(1)


def test_a_class_without_pixels_is_said(tmp_path):
    write(tmp_path, 2, told=["ground", "red", "green", "blue", "gold"])
    notes = opened(tmp_path).notes
    assert "1 of 5 classes have no pixel in the training masks: 'gold'" in notes
    assert "1 of 5 classes have no pixel in the validation masks: 'gold'" in notes


def test_images_in_both_sets_are_counted_aloud(tmp_path):
    assert "2 images are in both sets, so the scores are too high" in opened(write(tmp_path, 2)).notes


def test_copies_of_training_images_are_counted_wherever_they_lie(tmp_path):
    train, val = write(tmp_path / "train", 3), write(tmp_path / "val", 2, seed=7)
    assert not any("in both sets" in note for note in opened(train, val).notes)
    for folder in ("images", "masks"):
        shutil.copy(train / folder / "002.png", val / folder / "another_name.png")
    assert "1 images are in both sets, so the scores are too high" in opened(train, val).notes


def test_masks_without_an_image_are_counted_aloud(tmp_path):
    train, val = write(tmp_path / "train", 2), write(tmp_path / "val", 6, seed=7)
    for i in range(1, 6):
        (val / "images" / f"{i:03}.png").unlink()
    assert "5 validation masks have no image and are left out, such as 'masks/001.png'" in opened(train, val).notes


def test_masks_of_which_nothing_counts_are_refused(tmp_path):
    train, val = write(tmp_path / "train", 2), write(tmp_path / "val", 1)
    Image.fromarray(np.full((32, 32), 255, np.uint8)).save(val / "masks" / "000.png")
    with pytest.raises(ValueError, match="no pixel of the validation masks counts"):
        opened(train, val)


def test_the_facts_tell_what_one_class_everywhere_would_score(tmp_path):
    facts = opened(write(tmp_path, 4), ignore_index=3).facts
    pixels = np.concatenate([np.asarray(Image.open(file)).ravel() for file in (tmp_path / "masks").iterdir()])
    shares = np.bincount(pixels[pixels != 3]) / (pixels != 3).sum()
    assert facts["classes"] == 3
    assert facts["largest_class"] == pytest.approx(shares.max())
    assert facts["constant_miou"] == pytest.approx(shares.max() / 3)
    assert facts["ignored"] == pytest.approx((pixels == 3).mean())


def test_the_digest_follows_the_masks(tmp_path):
    root = write(tmp_path, 2)
    before = opened(root).facts["data"]["digest"]
    assert opened(root).facts["data"]["digest"] == before
    mask = np.asarray(Image.open(root / "masks" / "000.png")).copy()
    mask[0, 0] = 1 - mask[0, 0]
    Image.fromarray(mask).save(root / "masks" / "000.png")
    assert opened(root).facts["data"]["digest"] != before


def test_the_digest_follows_the_pixels_of_the_images_and_not_their_place(tmp_path):
    first = write(tmp_path / "first", 2)
    before = opened(first).facts["data"]["digest"]
    moved = shutil.copytree(first, tmp_path / "moved")
    assert opened(moved).facts["data"]["digest"] == before
    Image.effect_noise((32, 32), 50).convert("RGB").save(moved / "images" / "001.png")
    assert opened(moved).facts["data"]["digest"] != before
