import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from polygrain.losses.in_batch import nt_xent, predicted_keys
from polygrain.losses.pairs import pair_weights
from tests.references.dense_contrast import dense_mocov3, dense_nt_xent, dense_slots


def units(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, dtype=torch.float64, generator=generator), dim=-1)


def test_nt_xent_is_the_papers_sum_over_all_other_views() -> None:
    x, y = units(2, 5, 7)
    expected = dense_nt_xent(x, y, 0.3)
    assert float(nt_xent(x[:, None], y[:, None], 0.3).loss) == pytest.approx(expected, rel=1e-12)
    assert float(nt_xent(y[:, None], x[:, None], 0.3).loss) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("across", [False, True])
def test_slots_have_negatives_in_other_images_alone(across: bool) -> None:
    x, y = units(2, 4, 3, 6)
    x[:, 1] = x[:, 0]  # a patch that is matched twice is no negative of itself
    expected = dense_slots(x, y, 0.2, across=across)
    assert float(nt_xent(x, y, 0.2, across_slots=across).loss) == pytest.approx(expected, rel=1e-12)
    order = torch.tensor([2, 0, 3, 1])
    assert float(nt_xent(x[order], y[order], 0.2, across_slots=across).loss) == pytest.approx(expected, rel=1e-12)


def test_own_anchors_of_two_halves_average_to_the_whole() -> None:
    x, y = units(2, 6, 2, 7)
    halves = [float(nt_xent(x, y, 0.1, part).loss) for part in (slice(0, 3), slice(3, 6))]
    assert sum(halves) / 2 == pytest.approx(float(nt_xent(x, y, 0.1).loss), rel=1e-12)


def test_collapsed_vectors_give_the_logarithm_of_all_other_views() -> None:
    same = units(1, 1, 8).expand(16, 1, 8)
    contrast = nt_xent(same, same, 0.1)
    assert float(contrast.loss) == pytest.approx(math.log(2 * 16 - 1))
    assert float(contrast.accuracy) == 0


def test_accuracy_is_one_where_views_agree_and_images_differ() -> None:
    apart = torch.eye(6)[:, None]
    assert float(nt_xent(apart, apart, 0.1).accuracy) == 1


def test_predicted_keys_are_the_two_directions_times_two_temperatures() -> None:
    predictions, keys = units(2, 5, 7), units(2, 5, 7, seed=1)
    weights = 2 * pair_weights(2, 2, 2)
    for temperature in (0.2, 1.0):
        ours = predicted_keys(predictions, keys, weights, temperature, slice(0, 5)).loss
        assert float(ours) == pytest.approx(dense_mocov3(list(predictions), list(keys), temperature), rel=1e-6)
        swapped = predicted_keys(predictions.flip(0), keys.flip(0), weights, temperature, slice(0, 5)).loss
        assert float(swapped) == pytest.approx(float(ours), rel=1e-12)


@pytest.mark.parametrize(("temperature", "chance"), [(1.0, 33.27), (0.2, 6.65)])
def test_keys_that_are_alike_give_the_chance_level_of_a_batch_of_4096(temperature: float, chance: float) -> None:
    same = F.normalize(torch.ones(2, 4096, 4), dim=-1)
    contrast = predicted_keys(same[:, :8], same, 2 * pair_weights(2, 2, 2), temperature, slice(0, 8))
    assert float(contrast.loss) == pytest.approx(chance, abs=0.01)


def test_labels_of_a_rank_lie_at_its_own_images() -> None:
    keys = units(2, 6, 7)
    weights = 2 * pair_weights(2, 2, 2)
    later = predicted_keys(keys.flip(0)[:, 3:], keys, weights, 0.2, slice(3, 6))
    assert float(later.accuracy) / 2 == 1
    halves = [predicted_keys(keys[:, part], keys, weights, 0.2, part).loss for part in (slice(0, 3), slice(3, 6))]
    whole = predicted_keys(keys, keys, weights, 0.2, slice(0, 6)).loss
    assert float(sum(halves)) / 2 == pytest.approx(float(whole), rel=1e-12)
