import json
import math

import numpy as np
import pytest

from polygrain.data.davis import Davis, Files, read_mask
from polygrain.evaluate.video.davis import (
    ObjectScores,
    boundary_accuracy,
    boundary_map,
    region_similarity,
    score_video,
    statistics,
    summarise,
)
from tests.evaluate.video.discs import discs


@pytest.fixture(scope="module")
def osvos(real_images):
    """What the official evaluator says of OSVOS's masks, and what we say."""
    folder = real_images / "davis"
    expected = json.loads((folder / "osvos_expected.json").read_text())
    davis, predictions = Davis(folder / "davis.tar"), Files(folder / "osvos_predictions.tar")
    found = {}
    for video in davis.videos:
        truth = davis.masks(video)
        names = [f"{video.name}/{frame}.png" for frame in video.frames]
        if all(predictions.has(name) for name in names[1:-1]):
            masks = np.stack([truth[0], *(read_mask(predictions, name) for name in names[1:-1]), truth[-1]])
            scores = score_video(masks, truth, video.name)
            found |= {f"{video.name}_{i}": each for i, each in enumerate(scores, start=1)}
    return expected, found


def test_every_frame_scores_as_in_the_official_evaluator(osvos):
    expected, found = osvos
    assert found.keys() == expected["objects"].keys()
    for name, scores in found.items():
        np.testing.assert_allclose(scores.region, expected["objects"][name]["J_frames"], atol=1e-6)
        np.testing.assert_allclose(scores.boundary, expected["objects"][name]["F_frames"], atol=1e-6)


def test_every_object_scores_as_in_the_official_evaluator(osvos):
    expected, found = osvos
    for name, scores in found.items():
        for measure, values in (("J", scores.region), ("F", scores.boundary)):
            theirs = expected["objects"][name][measure]
            assert statistics(values)._asdict() == pytest.approx(theirs, abs=1e-6)


def test_the_whole_set_scores_as_in_the_official_evaluator(osvos):
    expected, found = osvos
    ours = summarise([*found.values()])
    theirs = {"J&F": expected["global"]["J&F-Mean"]}
    for measure in ("J", "F"):
        theirs |= {f"{measure}_{s.lower()}": expected["global"][f"{measure}-{s}"] for s in ("Mean", "Recall", "Decay")}
    assert ours == pytest.approx(theirs, abs=1e-6)
    assert ours["J&F"] == pytest.approx(0.807317, abs=1e-6)


def slow_boundary(mask):
    height, width = mask.shape
    edges = np.zeros_like(mask)
    for y in range(height):
        for x in range(width):
            others = [(y, x + 1), (y + 1, x), (y + 1, x + 1)]
            edges[y, x] = any(mask[y, x] != mask[a, b] for a, b in others if a < height and b < width)
    return edges


def slow_boundary_accuracy(first, second):
    reach = math.ceil(0.008 * math.sqrt(first.shape[0] ** 2 + first.shape[1] ** 2))
    points = [list(zip(*np.nonzero(slow_boundary(mask)), strict=True)) for mask in (first, second)]
    if not points[0] or not points[1]:
        return float(not points[0] and not points[1])
    near = [
        sum(any((a - c) ** 2 + (b - d) ** 2 <= reach**2 for c, d in other) for a, b in one) / len(one)
        for one, other in (points, points[::-1])
    ]
    return 2 * near[0] * near[1] / sum(near) if sum(near) else 0.0


def blobs(seed, height=30, width=41):
    random = np.random.default_rng(seed)
    coarse = random.random((6, 7)) < 0.4
    return np.kron(coarse, np.ones((5, 6), bool))[:height, :width]


@pytest.mark.parametrize("seed", range(6))
def test_f_is_what_pixel_by_pixel_loops_give(seed):
    first, second = blobs(seed), np.roll(blobs(seed), seed, axis=1) ^ blobs(seed + 50)
    assert np.array_equal(boundary_map(first), slow_boundary(first))
    assert boundary_accuracy(first, second) == pytest.approx(slow_boundary_accuracy(first, second), abs=1e-12)


def test_a_full_image_has_no_boundary_and_scores_one():
    full = np.ones((20, 30), bool)
    assert not boundary_map(full).any()
    assert boundary_accuracy(full, full) == region_similarity(full, full) == 1.0


def test_empty_masks_agree_and_an_empty_one_never_agrees_with_another():
    empty, some = np.zeros((20, 30), bool), np.zeros((20, 30), bool)
    some[5:9, 5:9] = True
    assert region_similarity(empty, empty) == boundary_accuracy(empty, empty) == 1.0
    assert region_similarity(empty, some) == boundary_accuracy(empty, some) == boundary_accuracy(some, empty) == 0.0


def test_both_measures_are_symmetric():
    first, second = blobs(1), blobs(2)
    assert region_similarity(first, second) == region_similarity(second, first)
    assert boundary_accuracy(first, second) == pytest.approx(boundary_accuracy(second, first), abs=1e-12)


@pytest.mark.parametrize(("shift", "expected"), [(0, 1.0), (8, 1.0), (9, 0.0)])
def test_f_forgives_a_shift_up_to_the_tolerance_and_no_more(shift, expected):
    first, second = np.zeros((480, 854), bool), np.zeros((480, 854), bool)  # whose tolerance is 8 pixels
    first[:, :400], second[:, : 400 + shift] = True, True
    assert boundary_accuracy(first, second) == expected


def test_true_masks_score_one_and_do_not_decay():
    _, masks = discs()
    assert summarise(score_video(masks, masks)) == pytest.approx(
        {"J&F": 1, "J_mean": 1, "J_recall": 1, "J_decay": 0, "F_mean": 1, "F_recall": 1, "F_decay": 0}
    )


def test_the_first_and_the_last_frame_do_not_count():
    _, masks = discs()
    spoilt = masks.copy()
    spoilt[0], spoilt[-1] = 7, 0
    assert summarise(score_video(spoilt, masks))["J&F"] == 1.0


def test_renaming_objects_in_both_changes_nothing():
    _, masks = discs()
    predicted = np.roll(masks, 3, axis=2)
    names = np.array([0, 2, 1], np.uint8)
    ours, renamed = score_video(predicted, masks), score_video(names[predicted], names[masks])
    assert summarise(ours) == pytest.approx(summarise(renamed), abs=1e-12)
    np.testing.assert_array_equal(ours[0].region, renamed[1].region)


def test_an_object_that_is_not_predicted_scores_nothing():
    _, masks = discs()
    found = score_video(np.where(masks == 2, 0, masks), masks)
    assert found[0].region.tolist() == [1.0] * 4
    assert found[1].region.tolist() == found[1].boundary.tolist() == [0.0] * 4


def test_void_counts_as_background():
    _, masks = discs()
    truth = masks.copy()
    truth[:, :5] = 255
    assert summarise(score_video(masks, truth))["J&F"] == 1.0


def test_more_objects_than_there_are_is_an_error():
    _, masks = discs()
    predicted = masks.copy()
    predicted[2, 0, 0] = 3
    with pytest.raises(ValueError, match="discs: object 3 is predicted, and there are 2 objects"):
        score_video(predicted, masks, "discs")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p, t: (p[:, :50], t), r"128x50 pixels, its masks 128x96"),
        (lambda p, t: (p[:4], t), "4 frames are predicted and 6 have masks"),
        (lambda p, t: (p[:2], t[:2]), "has 2 frames; .* 3 are needed"),
        (lambda p, t: (p, t * 0), "holds no object"),
    ],
)
def test_masks_that_do_not_fit_are_refused(change, message):
    _, masks = discs()
    with pytest.raises(ValueError, match=message):
        score_video(*change(masks, masks))


def test_recall_counts_frames_strictly_above_one_half():
    assert statistics(np.array([0.5, 0.5, 0.6, 0.4])).recall == 0.25


def test_decay_of_a_falling_line_by_hand():
    values = 1 - np.arange(9) / 8  # edges 0, 2, 4, 6, 8: quarters 0..2 and 6..8
    assert statistics(values).decay == pytest.approx((1 + 0.875 + 0.75) / 3 - (0.25 + 0.125 + 0) / 3)


def test_decay_of_long_videos_is_not_cut_to_8_bits():
    values = np.concatenate([np.full(300, 1.0), np.full(100, 0.25)])
    assert statistics(values).decay == pytest.approx(0.75, abs=0.01)


def test_numbers_are_means_over_objects_not_over_videos():
    good, bad = ObjectScores(np.ones(3), np.ones(3)), ObjectScores(np.zeros(3), np.zeros(3))
    assert summarise([good, bad, bad])["J&F"] == pytest.approx(1 / 3)
