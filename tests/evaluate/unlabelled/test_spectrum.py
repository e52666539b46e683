import math

import numpy as np
import pytest
import scipy.linalg
import torch

from polygrain.evaluate.unlabelled.spectrum import alpha_req, effective_rank, lidar, nesum, stable_rank
from polygrain.losses.gauges import rankme


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def with_covariance_eigenvalues(eigenvalues, count):
    """Centred rows whose covariance has exactly these eigenvalues, in random directions."""
    width = len(eigenvalues)
    rows = gaussian(count, width)
    basis = torch.linalg.qr(rows - rows.mean(0)).Q
    return basis * eigenvalues.sqrt() @ torch.linalg.qr(gaussian(width, width, seed=1)).Q


def test_effective_rank_of_equal_singular_values_is_their_number():
    assert effective_rank(3 * torch.linalg.qr(gaussian(64, 16)).Q) == pytest.approx(16, rel=1e-12)


def test_effective_rank_of_one_direction_is_one_without_any_epsilon():
    assert effective_rank(gaussian(300, 1) * gaussian(1, 2048)) == pytest.approx(1, abs=1e-9)


def test_effective_rank_of_two_unequal_singular_values_follows_their_entropy():
    vectors = torch.diag(torch.tensor([3.0, 1.0]))
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert effective_rank(vectors) == pytest.approx(math.exp(entropy), rel=1e-12)


def test_effective_rank_does_not_change_with_scale_or_rotation():
    vectors = gaussian(100, 12) * torch.linspace(0.1, 2, 12)
    rotation = torch.linalg.qr(gaussian(12, 12, seed=1)).Q
    assert effective_rank(7 * vectors @ rotation) == pytest.approx(effective_rank(vectors), rel=1e-9)


def test_rankme_is_effective_rank_but_for_its_epsilon():
    vectors = gaussian(200, 40) * torch.linspace(0.01, 1, 40)
    sigma = np.linalg.svd(vectors.numpy(), compute_uv=False)
    share = sigma / sigma.sum() + 1e-7
    assert float(rankme(vectors)) == pytest.approx(np.exp(-(share * np.log(share)).sum()), rel=1e-6)


def test_ranks_of_nothing_are_zero_and_of_one_point_one():
    assert effective_rank(torch.zeros(8, 4)) == stable_rank(torch.zeros(8, 4)) == 0
    same = torch.ones(8, 4)
    assert effective_rank(same) == stable_rank(same) == pytest.approx(1)
    assert effective_rank(same, centred=True) == nesum(same) == 0


def test_stable_rank_is_the_sum_of_squares_over_the_largest():
    assert stable_rank(torch.diag(torch.tensor([3.0, 1.0, 1.0]))) == pytest.approx(11 / 9)


def test_stable_rank_is_dominated_by_the_mean_unless_it_is_taken_away():
    vectors = gaussian(2000, 64) + 10
    assert stable_rank(vectors) == pytest.approx(1.01, abs=0.005)
    assert stable_rank(vectors, centred=True) > 40


def test_nesum_of_a_line_is_one_and_of_known_eigenvalues_their_sum_over_the_largest():
    assert nesum(gaussian(50, 1) * gaussian(1, 9)) == pytest.approx(1)
    eigenvalues = torch.tensor([4.0, 2.0, 1.0, 1.0], dtype=torch.float64)
    assert nesum(with_covariance_eigenvalues(eigenvalues, 40) + 5) == pytest.approx(2)


def test_nesum_of_a_gaussian_is_what_marchenko_and_pastur_say():
    # the largest eigenvalue of n x d Gaussian rows is (1 + sqrt(d / n))^2, their mean 1
    n, d = 6400, 64
    assert nesum(gaussian(n, d)) == pytest.approx(d / (1 + math.sqrt(d / n)) ** 2, rel=0.02)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_alpha_of_a_power_law_is_its_exponent(alpha):
    eigenvalues = torch.arange(1, 129, dtype=torch.float64) ** -alpha
    law = alpha_req(with_covariance_eigenvalues(eigenvalues, 300))
    assert law.alpha == pytest.approx(alpha, abs=1e-6)
    assert law.r2 == pytest.approx(1, abs=1e-9)


def test_alpha_equals_the_weighted_fit_of_numpy():
    vectors = gaussian(400, 128) * torch.linspace(0.05, 1, 128)
    eigenvalues = np.linalg.eigvalsh(np.cov(vectors.numpy().T))[::-1]
    ranks = np.arange(11, 101)
    slope, start = np.polyfit(np.log(ranks), np.log(eigenvalues[10:100]), 1, w=ranks**-0.5)
    left = np.log(eigenvalues[10:100]) - slope * np.log(ranks) - start
    law = alpha_req(vectors)
    assert law.alpha == pytest.approx(-slope, rel=1e-6)
    assert law.r2 == pytest.approx(1 - (left**2).sum() / (90 * np.log(eigenvalues[10:100]).var()), rel=1e-6)


def test_alpha_of_too_few_eigenvalues_is_none():
    assert alpha_req(gaussian(100, 20)) is None
    assert alpha_req(torch.ones(100, 64)) is None


def signal_and_noise(images=200, views=10, signal=8, width=64):
    """Views of an image differ in all dimensions, images in the first few only."""
    centres = torch.zeros(images, 1, width, dtype=torch.float64)
    centres[:, 0, :signal] = 5 * gaussian(images, signal)
    return centres + gaussian(images, views, width, seed=1)


def test_lidar_sees_the_dimensions_in_which_images_differ_and_rankme_all():
    views = signal_and_noise()
    assert 7.5 < lidar(views) < 12
    assert rankme(views.flatten(0, 1)) > 40


def test_lidar_equals_its_definition():
    views = signal_and_noise(images=60, views=5, width=20)
    rows = views.numpy()
    means = rows.mean(1)
    between = sum(np.outer(m - means.mean(0), m - means.mean(0)) for m in means) / 60
    within = sum(np.outer(v - m, v - m) for image, m in zip(rows, means, strict=True) for v in image) / 300
    eigenvalues = scipy.linalg.eigh(between, within + 1e-4 * np.eye(20), eigvals_only=True).clip(0)
    share = eigenvalues / eigenvalues.sum() + 1e-7
    assert lidar(views) == pytest.approx(np.exp(-(share * np.log(share)).sum()), rel=1e-8)


def test_lidar_does_not_change_under_an_invertible_map():
    views = signal_and_noise(images=60, width=16)
    mapped = views @ (gaussian(16, 16, seed=2) + 4 * torch.eye(16))
    assert lidar(mapped, delta=1e-12) == pytest.approx(lidar(views, delta=1e-12), rel=1e-6)


def test_lidar_of_images_that_are_all_the_same_is_one():
    assert lidar(torch.ones(30, 4, 8)) == 1
