import pytest
import torch

from polygrain.losses.redundancy import barlow, cross_correlation


def normed(rows: torch.Tensor) -> torch.Tensor:
    return (rows - rows.mean(0)) / rows.std(0, correction=0)


def test_views_that_agree_and_are_decorrelated_leave_the_noise_of_the_sample() -> None:
    images, dims = 4000, 30
    x = normed(torch.randn(images, dims, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    terms = barlow(cross_correlation(x, x, images))
    assert float(terms.invariance) == pytest.approx(0, abs=1e-20)
    assert float(terms.redundancy) == pytest.approx(dims * (dims - 1) / images, rel=0.2)


def test_independent_views_give_one_for_every_dimension() -> None:
    images, dims = 4000, 30
    x, y = torch.randn(2, images, dims, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    terms = barlow(cross_correlation(normed(x), normed(y), images))
    assert float(terms.invariance) == pytest.approx(dims, rel=0.05)
