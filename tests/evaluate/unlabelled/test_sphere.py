import itertools
import math

import pytest
import torch

from polygrain.evaluate.unlabelled.sphere import alignment, uniformity


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_alignment_is_zero_for_one_direction_two_for_unrelated_and_four_for_opposite_vectors():
    rows = gaussian(4000, 64)
    assert alignment(rows, 3 * rows) == pytest.approx(0, abs=1e-12)
    assert alignment(rows, gaussian(4000, 64, seed=1)) == pytest.approx(2, abs=0.02)
    assert alignment(rows, -rows) == pytest.approx(4)


def test_uniformity_equals_the_loop_over_pairs():
    rows = gaussian(40, 5)
    unit = rows / rows.norm(dim=1, keepdim=True)
    kernels = [math.exp(-2 * float((u - v).square().sum())) for u, v in itertools.combinations(unit, 2)]
    assert uniformity(rows) == pytest.approx(math.log(sum(kernels) / len(kernels)), rel=1e-9)


def test_uniformity_of_one_direction_is_zero():
    assert uniformity(torch.ones(30, 8)) == pytest.approx(0, abs=1e-12)


def test_uniformity_of_the_uniform_sphere_is_its_closed_form():
    # E exp(-4 (1 - c)) with c the cosine, of density (1 - c^2)^((D - 3) / 2)
    c = torch.linspace(-1, 1, 200_001, dtype=torch.float64)
    density = (1 - c**2) ** ((64 - 3) / 2)
    expected = float(((density * torch.exp(-4 * (1 - c))).sum() / density.sum()).log())
    assert expected == pytest.approx(-3.875, abs=1e-2)
    assert uniformity(gaussian(3000, 64)) == pytest.approx(expected, abs=5e-3)
