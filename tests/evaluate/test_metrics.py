import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, jaccard_score, top_k_accuracy_score

from polygrain.evaluate.metrics import (
    bootstrap_interval,
    classification_scores,
    intersection_over_union,
    segmentation_scores,
)
from polygrain.evaluate.metrics import confusion_matrix as our_confusion


def test_scores_equal_those_of_sklearn():
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(400, 8, generator=random)
    truth = torch.randint(8, (400,), generator=random)
    scores = classification_scores(logits.argsort(dim=1, descending=True), truth)
    assert scores["top1"] == pytest.approx((logits.argmax(1) == truth).double().mean().item())
    assert scores["top5"] == pytest.approx(top_k_accuracy_score(truth, logits.numpy(), k=5, labels=range(8)))
    assert scores["per_class"] == pytest.approx(balanced_accuracy_score(truth, logits.argmax(1)))


def test_mean_over_classes_leaves_out_classes_that_do_not_occur():
    scores = classification_scores(torch.tensor([[0], [0], [3], [1]]), torch.tensor([0, 0, 3, 3]))
    assert scores["per_class"] == pytest.approx((1 + 0.5) / 2)


def test_top5_needs_five_ranked_classes():
    assert "top5" not in classification_scores(torch.tensor([[0, 1, 2]]), torch.tensor([0]))


def test_interval_is_that_of_resampling_item_by_item():
    right = np.arange(500) < 350
    random = np.random.default_rng(1)
    means = [right[random.integers(500, size=500)].mean() for _ in range(2000)]
    assert bootstrap_interval(0.7, 500) == pytest.approx(np.percentile(means, [2.5, 97.5]), abs=6e-3)


def test_interval_of_a_perfect_score_is_the_score():
    assert bootstrap_interval(1.0, 50) == (1.0, 1.0)


def test_mean_iou_equals_the_mean_of_sklearns_jaccard_scores():
    random = torch.Generator().manual_seed(0)
    truth = torch.randint(6, (5, 9, 11), generator=random)
    predicted = torch.where(torch.rand(truth.shape, generator=random) < 0.6, truth, (truth + 1) % 6)
    scores = segmentation_scores(our_confusion(predicted, truth, 6))
    assert scores["miou"] == pytest.approx(jaccard_score(truth.flatten(), predicted.flatten(), average="macro"))
    assert scores["pixel_accuracy"] == pytest.approx((predicted == truth).double().mean().item())


def test_confusion_has_truth_in_rows():
    truth, predicted = torch.tensor([0, 0, 1, 2, 2, 2]), torch.tensor([0, 1, 1, 2, 0, 0])
    assert our_confusion(predicted, truth, 3).tolist() == confusion_matrix(truth, predicted).tolist()


def test_iou_equals_a_loop_over_pixels_with_ignored_and_absent_classes():
    random = torch.Generator().manual_seed(3)
    truth = torch.randint(4, (200,), generator=random)  # class 4 occurs nowhere, class 9 is ignored
    truth[::7] = 9
    predicted = torch.randint(4, (200,), generator=random)
    expected = []
    for c in range(4):
        both = sum(1 for p, t in zip(predicted, truth, strict=True) if t != 9 and p == c and t == c)
        either = sum(1 for p, t in zip(predicted, truth, strict=True) if t != 9 and (p == c or t == c))
        expected.append(both / either)
    confusion = our_confusion(predicted, truth, 5, ignore=9)
    assert intersection_over_union(confusion)[:4].tolist() == pytest.approx(expected)
    assert segmentation_scores(confusion)["miou"] == pytest.approx(sum(expected) / 4)


def test_a_constant_prediction_scores_the_share_of_its_class():
    truth = torch.tensor([0] * 6 + [1] * 3 + [2] * 1)
    scores = segmentation_scores(our_confusion(torch.zeros(10, dtype=torch.long), truth, 3))
    assert scores["miou"] == pytest.approx(0.6 / 3)
