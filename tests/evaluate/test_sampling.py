"""Intervals of numbers and of the differences between two models on the same items."""

import numpy as np
import pytest

from polygrain.evaluate.sampling import Sample


def test_the_interval_of_a_mean_is_the_normal_one_for_many_items():
    values = np.random.default_rng(0).normal(2, 3, 5_000)
    found = Sample(values).estimate()
    error = values.std() / np.sqrt(len(values))
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx(
        (found.value - 1.96 * error, found.value + 1.96 * error), abs=error / 5
    )


def test_the_gain_has_the_normal_interval_of_the_differences_for_many_pairs():
    """Mean and 1.96 standard errors of the differences, by the central limit theorem."""
    random = np.random.default_rng(0)
    before = random.choice([0.0, 1.0], size=20_000)
    after = np.where(random.random(20_000) < 0.2, 1.0, before)
    differences = after - before
    found = Sample(after).gain(Sample(before))
    error = differences.std() / np.sqrt(len(differences))
    assert found.value == pytest.approx(differences.mean())
    assert (found.low, found.high) == pytest.approx(
        (found.value - 1.96 * error, found.value + 1.96 * error), abs=error / 5
    )


def ratio(means):
    return means[..., 0] / means[..., 1]


def test_the_gain_of_a_ratio_is_that_of_drawing_pair_by_pair():
    random = np.random.default_rng(1)
    common = random.uniform(1, 2, 40)
    before = np.stack([common * random.uniform(0.4, 0.6, 40), common], 1)
    after = before * [1.2, 1]
    found = Sample(after, ratio).gain(Sample(before, ratio))
    drawn = [random.integers(40, size=40) for _ in range(4_000)]
    gains = [ratio(after[rows].mean(0)) - ratio(before[rows].mean(0)) for rows in drawn]
    assert found.value == pytest.approx(ratio(after.mean(0)) - ratio(before.mean(0)))
    assert (found.low, found.high) == pytest.approx(np.percentile(gains, [2.5, 97.5]), abs=5e-4)
    apart = Sample(after, ratio).estimate().high - Sample(before, ratio).estimate().low
    assert found.high < apart  # what both models find hard cancels out


def test_pairs_that_always_agree_leave_no_doubt():
    values = np.random.default_rng(2).random(50)
    assert Sample(values).gain(Sample(values)) == (0, 0, 0)
