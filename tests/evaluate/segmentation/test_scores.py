import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, jaccard_score, recall_score

from polygrain.evaluate.metrics import intersection_over_union
from polygrain.evaluate.segmentation.scores import by_class, constant, mean_iou, scores, tally
from polygrain.evaluate.segmentation.sets import VOID
from tests.evaluate.segmentation.shapes import draws


def some(seed=0, classes=4):
    predicted, truth = draws(5, 6, 7, classes=classes, seed=seed), draws(5, 6, 7, classes=classes, seed=seed + 1)
    return list(zip(predicted, truth, strict=True))


def brute_force(pairs, classes):
    """Mean IoU of the whole set by sets of pixels."""
    found = []
    for c in range(classes):
        predicted, true = set(), set()
        for image, (mask, truth) in enumerate(pairs):
            for y in range(truth.shape[0]):
                for x in range(truth.shape[1]):
                    if truth[y, x] == VOID:
                        continue
                    if mask[y, x] == c:
                        predicted.add((image, y, x))
                    if truth[y, x] == c:
                        true.add((image, y, x))
        if predicted | true:
            found.append(len(predicted & true) / len(predicted | true))
    return sum(found) / len(found)


def with_void(pairs):
    return [
        (mask, torch.where(draws(6, 7, classes=5, seed=i) == 0, VOID, truth)) for i, (mask, truth) in enumerate(pairs)
    ]


def test_a_perfect_prediction_has_every_score_at_one():
    found = scores(tally([(truth, truth) for _, truth in some()], 4))
    assert set(found.values()) == {1.0}


def test_a_constant_prediction_scores_the_share_of_its_class_by_the_classes_there_are():
    pairs = [(torch.full_like(truth, 2), truth) for _, truth in some(classes=4)]
    share = np.mean([(truth == 2).double().mean().item() for _, truth in pairs])
    found = scores(tally(pairs, 6))  # two classes that never occur
    assert found["miou"] == pytest.approx(share / 4)
    assert found["pixel_accuracy"] == pytest.approx(share)
    assert found["class_accuracy"] == pytest.approx(1 / 4)
    assert constant(tally(pairs, 6))


def test_the_mean_iou_equals_counting_pixel_by_pixel():
    pairs = with_void(some())
    assert mean_iou(tally(pairs, 4)) == pytest.approx(brute_force(pairs, 4), abs=1e-12)


def test_scores_equal_those_of_scikit_learn():
    pairs = with_void(some(seed=7))
    predicted = np.concatenate([mask[truth != VOID].numpy() for mask, truth in pairs])
    true = np.concatenate([truth[truth != VOID].numpy() for _, truth in pairs])
    found = tally(pairs, 4)
    assert np.array_equal(found.confusion, confusion_matrix(true, predicted, labels=range(4)))
    assert scores(found)["miou"] == pytest.approx(jaccard_score(true, predicted, average="macro"))
    assert scores(found)["class_accuracy"] == pytest.approx(recall_score(true, predicted, average="macro"))
    expected = jaccard_score(true, predicted, average=None)
    assert list(by_class(found, tuple("abcd")).values()) == pytest.approx(list(expected))


def test_what_is_predicted_where_nothing_counts_changes_no_score():
    pairs = with_void(some())
    other = [(torch.where(truth == VOID, 3 - mask, mask), truth) for mask, truth in pairs]
    assert scores(tally(pairs, 4)) == scores(tally(other, 4))


def test_renaming_classes_changes_no_score():
    names = torch.tensor([2, 0, 3, 1])
    pairs = some()
    renamed = [(names[mask], names[truth]) for mask, truth in pairs]
    assert scores(tally(renamed, 4)) == pytest.approx(scores(tally(pairs, 4)))


def test_a_class_that_is_nowhere_has_no_iou():
    pairs = [(draws(4, 4, classes=2), draws(4, 4, classes=2, seed=1))]
    assert by_class(tally(pairs, 3), ("a", "b", "c"))["c"] is None


def test_the_interval_is_that_of_resampled_images():
    pairs = some(seed=3)
    found = scores(tally(pairs, 4), seed=5)
    confusions = np.stack([tally([pair], 4).confusion for pair in pairs])
    random = np.random.default_rng(5)
    confusions = torch.from_numpy(np.stack([confusions[random.integers(5, size=5)].sum(0) for _ in range(1000)]))
    resampled = [intersection_over_union(one).nanmean().item() for one in confusions]
    low, high = np.percentile(resampled, [2.5, 97.5])
    assert (found["miou_low"], found["miou_high"]) == pytest.approx((low, high))
    assert found["miou_low"] < found["miou"] < found["miou_high"]
