import copy
import json

import numpy as np
import pytest
import torch

from polygrain.data.coco import CocoImages
from polygrain.data.coco_json import Annotations
from polygrain.evaluate.detection.intervals import average_precision, by_category
from polygrain.evaluate.detection.scores import METRICS, coco_scores, judged, results

FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


@pytest.fixture(scope="module")
def truth(real_images):
    return Annotations(real_images / "coco" / "instances_val.json")


@pytest.fixture(scope="module")
def detections(real_images):
    return json.loads((real_images / "coco" / "detections_val.json").read_bytes())


@pytest.fixture(scope="module")
def perfect(real_images):
    """Every object of the first twenty images, found by a detector that knows the truth."""
    images = CocoImages(real_images / "coco" / "val.tar", real_images / "coco" / "instances_val.json")
    found = []
    for position in range(20):
        boxes, labels, masks = images.truth(position)
        predicted = {"boxes": boxes, "labels": labels, "scores": torch.ones(len(boxes)), "masks": masks[:, None]}
        found += results(images.annotations, images.ids[position], predicted)
    return found


@pytest.fixture(scope="module")
def twenty(truth):
    """The annotations of the same images."""
    part = copy.copy(truth)
    ids = sorted(truth.images)[:20]
    part.images = {image: truth.images[image] for image in ids}
    part.objects = {image: truth.objects[image] for image in ids}
    return part


def test_all_figures_of_made_up_detections_are_those_that_were_published_with_them(truth, detections, real_images):
    expected = json.loads((real_images / "coco" / "expected_val.json").read_bytes())
    scores = coco_scores(truth, detections)
    for kind, word in (("boxes", "bbox"), ("masks", "segm")):
        wanted = {name: expected[word][figure] for name, figure in zip(METRICS, FIGURES, strict=True)}
        assert {name: scores[kind][name] for name in wanted} == pytest.approx(wanted, abs=1e-6)


def test_the_truth_as_detections_scores_one(twenty, perfect):
    scores = coco_scores(twenty, perfect)
    assert scores["boxes"]["AP"] == pytest.approx(1) and scores["masks"]["AP"] == pytest.approx(1)


def test_an_object_of_id_zero_can_be_found(twenty, perfect):
    part = copy.copy(twenty)
    ids = iter(range(10_000))
    part.objects = {image: [{**one, "id": next(ids)} for one in found] for image, found in twenty.objects.items()}
    assert coco_scores(part, perfect)["boxes"]["AP"] == pytest.approx(1)


def test_other_categories_score_nothing(twenty, perfect):
    ids = twenty.categories
    rolled = [{**one, "category_id": ids[(ids.index(one["category_id"]) + 40) % 80]} for one in perfect]
    assert coco_scores(twenty, rolled)["boxes"]["AP"] < 0.02


def test_scores_count_by_their_order_alone(twenty, detections):
    part = [one for one in detections if one["image_id"] in twenty.images]
    changed = [{**one, "score": one["score"] ** 3} for one in part]
    assert coco_scores(twenty, changed) == coco_scores(twenty, part)


def test_detections_in_an_image_without_objects_lower_precision_and_not_recall(twenty, perfect):
    empty = max(twenty.images) + 1
    more = copy.copy(twenty)
    more.images = {**twenty.images, empty: {"id": empty, "file_name": "x", "height": 9, "width": 9}}
    more.objects = {**twenty.objects, empty: []}
    category = perfect[0]["category_id"]
    runs = {"size": [9, 9], "counts": [0, 81]}
    false = {"image_id": empty, "category_id": category, "score": 2.0, "bbox": [0, 0, 9, 9], "segmentation": runs}
    found = coco_scores(more, [*perfect, false])["boxes"]
    assert found["AP"] < 1 and found["AR100"] == pytest.approx(1)


def test_detections_given_twice_lower_precision_and_not_recall(twenty, perfect):
    found = coco_scores(twenty, [*perfect, *perfect])["boxes"]
    assert found["AP"] < 0.99 and found["AR100"] == pytest.approx(1)


def test_nothing_found_scores_nothing(twenty):
    scores = coco_scores(twenty, [])
    assert scores["boxes"]["AP"] == scores["masks"]["AP"] == 0


def test_sizes_that_do_not_occur_have_no_figure(twenty, perfect):
    part = copy.copy(twenty)
    part.objects = {image: [one for one in found if one["area"] > 96**2] for image, found in twenty.objects.items()}
    scores = coco_scores(part, perfect)["boxes"]
    assert "AP_small" not in scores and "AP_large" in scores


def test_our_average_precision_of_all_images_once_is_that_of_pycocotools(truth, detections):
    scores = coco_scores(truth, detections)
    for kind, judge in judged(truth, detections).items():
        once = np.ones((1, len(judge.params.imgIds)), np.int64)
        (found,) = average_precision([*by_category(judge)], once, judge.params.recThrs)
        assert found == pytest.approx(scores[kind]["AP"], abs=1e-12)


def test_resampled_images_score_as_a_set_in_which_they_stand_several_times(twenty, detections):
    """Images are copied under new ids, and pycocotools judges the larger set."""
    ids = sorted(twenty.images)
    part = [found for found in detections if found["image_id"] in twenty.images]
    times = np.random.default_rng(3).multinomial(20, np.full(20, 0.05))
    copied, repeated, new = copy.copy(twenty), [], 10**6
    copied.images, copied.objects = {}, {}
    for image, count in zip(ids, times, strict=True):
        for _ in range(count):
            new += 1
            copied.images[new] = {**twenty.images[image], "id": new}
            copied.objects[new] = [{**one, "image_id": new} for one in twenty.objects[image]]
            repeated += [{**found, "image_id": new} for found in part if found["image_id"] == image]
    judge = judged(twenty, part)["boxes"]
    (found,) = average_precision([*by_category(judge)], times[None], judge.params.recThrs)
    assert found == pytest.approx(coco_scores(copied, repeated)["boxes"]["AP"], abs=2e-3)  # ties stand together here


def test_the_interval_holds_the_score_and_is_wide_for_few_images(twenty, truth, detections):
    few, many = (coco_scores(one, [d for d in detections if d["image_id"] in one.images]) for one in (twenty, truth))
    for scores in (few["boxes"], many["boxes"], many["masks"]):
        assert 0 <= scores["AP_low"] < scores["AP"] < scores["AP_high"] <= 1
    assert few["boxes"]["AP_high"] - few["boxes"]["AP_low"] > many["boxes"]["AP_high"] - many["boxes"]["AP_low"]
