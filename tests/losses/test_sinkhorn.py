import json
import math
from pathlib import Path

import pytest
import torch

from polygrain.losses.pairs import pair_weights
from polygrain.losses.sinkhorn import LEAST_EPSILON, sinkhorn, swapped_prediction
from tests.references.make_clustering import wave

LIGHTLY = json.loads((Path(__file__).parents[1] / "references" / "clustering.json").read_text())["lightly"]
SCORES = torch.stack([0.9 * wave(6, 7, pace=pace) for pace in (0.3, 0.5, 0.8)])  # (V, B, K)


def test_codes_are_those_of_lightly() -> None:
    torch.testing.assert_close(sinkhorn(SCORES[0], 0.05), torch.tensor(LIGHTLY["codes"]), rtol=1e-4, atol=1e-7)


def test_the_loss_of_two_large_views_and_a_small_one_is_that_of_lightly_times_a_constant() -> None:
    codes = torch.stack([sinkhorn(view, 0.05) for view in SCORES[:2]])
    loss = swapped_prediction(SCORES, codes, pair_weights(2, 3, large=3), 0.1)
    assert float(loss) == pytest.approx(LIGHTLY["loss"], rel=1e-5)


def test_each_image_adds_up_to_one_and_after_many_rounds_each_prototype_to_its_share() -> None:
    codes = sinkhorn(SCORES[0], 0.05)
    torch.testing.assert_close(codes.sum(1), torch.ones(6))
    codes = sinkhorn(SCORES[0], 0.5, iterations=200)
    torch.testing.assert_close(codes.sum(0), torch.full((7,), 6 / 7), rtol=1e-4, atol=0)


def test_a_constant_added_to_all_scores_changes_nothing_and_large_scores_do_not_overflow() -> None:
    torch.testing.assert_close(sinkhorn(SCORES[0] + 100, 0.05), sinkhorn(SCORES[0], 0.05), rtol=1e-3, atol=1e-6)


def test_identical_images_get_uniform_codes_and_a_loss_of_ln_k() -> None:
    alike = SCORES[0][:1].expand(6, -1)
    codes = sinkhorn(alike, 0.05)
    torch.testing.assert_close(codes, torch.full((6, 7), 1 / 7))
    flat = torch.zeros(2, 6, 7)
    loss = swapped_prediction(flat, torch.stack([codes, codes]), pair_weights(2, 2, large=2), 0.1)
    assert float(loss) == pytest.approx(math.log(7))


def test_the_least_epsilon_still_gives_numbers() -> None:
    opposite = torch.eye(4) * 2 - 1  # cosines of 1 and -1
    assert torch.isfinite(sinkhorn(opposite, LEAST_EPSILON)).all()


def test_codes_get_no_gradient_and_a_view_does_not_predict_its_own() -> None:
    scores = SCORES.clone().requires_grad_()
    codes = sinkhorn(SCORES[0], 0.05)[None].requires_grad_()
    swapped_prediction(scores, codes, pair_weights(1, 3, large=3), 0.1).backward()
    assert codes.grad is None and scores.grad is not None
    assert not scores.grad[0].any() and scores.grad[1:].any()


def test_autocast_computes_in_float32() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        codes = sinkhorn(SCORES[0].bfloat16(), 0.05)
    assert codes.dtype == torch.float32
