import math

import pytest
import torch

from polygrain.losses.gauges import mean_cosine, rankme, spread


def test_rank_of_equal_singular_values_is_their_number():
    vectors = torch.linalg.qr(torch.randn(64, 16)).Q * 3
    assert rankme(vectors).item() == pytest.approx(16, rel=1e-4)


def test_rank_of_one_direction_is_one_but_for_the_papers_epsilon():
    # p = (1 + e, e, ..., e) with e = 1e-7 in 2048 dimensions: exp(2047 e ln(1/e) - e) = 1.0033
    vectors = torch.randn(2048, 1, dtype=torch.float64) * torch.randn(1, 2048, dtype=torch.float64)
    expected = math.exp(2047e-7 * math.log(1e7) - 1e-7)
    assert rankme(vectors).item() == pytest.approx(expected, rel=1e-4)


def test_rank_of_two_unequal_singular_values_follows_their_entropy():
    vectors = torch.zeros(5, 2)
    vectors[0, 0], vectors[1, 1] = 3.0, 1.0
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert rankme(vectors).item() == pytest.approx(math.exp(entropy), rel=1e-5)


def test_rank_does_not_change_with_scale_or_rotation():
    vectors = torch.randn(100, 12) @ torch.diag(torch.linspace(0.1, 2, 12))
    rotation = torch.linalg.qr(torch.randn(12, 12)).Q
    assert rankme(7 * vectors @ rotation).item() == pytest.approx(rankme(vectors).item(), rel=1e-5)


def test_rank_is_not_centred():
    vectors = torch.randn(512, 32)
    assert rankme(vectors + 10) < 0.5 * rankme(vectors)


def test_rank_of_zero_vectors_is_finite():
    assert torch.isfinite(rankme(torch.zeros(8, 4)))


def test_spread_is_one_for_gaussian_vectors_and_zero_for_equal_ones():
    vectors = torch.randn(20_000, 64, generator=torch.Generator().manual_seed(0))
    assert spread(vectors).item() == pytest.approx(1.0, abs=2e-3)
    assert spread(vectors[:1].expand(10, -1)).item() == pytest.approx(0.0, abs=1e-6)


def test_spread_of_opposite_axes_is_one():
    # +-e_1 .. +-e_D: every dimension has mean 0 and variance 1/D
    vectors = torch.cat([torch.eye(6), -torch.eye(6)]) * 5
    assert spread(vectors).item() == pytest.approx(1.0, rel=1e-6)


def test_mean_cosine_equals_the_mean_over_pairs():
    vectors = torch.randn(9, 5)
    pairs = [
        torch.cosine_similarity(vectors[i], vectors[j], dim=0).item() for i in range(9) for j in range(9) if i != j
    ]
    assert mean_cosine(vectors).item() == pytest.approx(sum(pairs) / len(pairs), abs=1e-6)


def test_mean_cosine_of_one_direction_is_one():
    vectors = torch.tensor([[1.0, 2.0], [2.0, 4.0], [0.5, 1.0]])
    assert mean_cosine(vectors).item() == pytest.approx(1.0, abs=1e-6)
