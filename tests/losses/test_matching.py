import pytest
import torch
from torch import Tensor

from polygrain.losses.matching import Matches, feature_distances, location_distances, nearest
from polygrain.losses.vicreg import invariance, spread
from polygrain.views import patch_centres

BOXES = {"A": (10, 20, 70, 140), "B": (33, 61, 101, 73), "C": (33, 61, 101, 73)}
CELLS = {"A": 7, "B": 7, "C": 3}


def centres(name: str, images: int = 1) -> Tensor:
    box = torch.tensor([BOXES[name]] * images, dtype=torch.float32)
    return patch_centres(box, torch.zeros(images, dtype=torch.bool), CELLS[name], CELLS[name])


# Pairs that the authors' code finds between these boxes.
A_INPUTS = [*range(16, 20), *range(23, 27), *range(30, 34), *range(37, 41), *range(44, 48)]
A_TO_B = [0, 2, 4, 6, 0, 2, 4, 6, 7, 9, 11, 13, 14, 16, 18, 20, 14, 16, 18, 20]
A_TO_C = [0, 1, 2, 2, 0, 1, 2, 2, 0, 1, 2, 2, 0, 1, 2, 2, 3, 4, 5, 5]


@pytest.mark.parametrize(
    ("source", "target", "count", "inputs", "candidates"),
    [
        ("A", "B", 20, A_INPUTS, A_TO_B),
        ("B", "A", 4, [7, 9, 11, 13], [30, 31, 32, 33]),
        ("A", "C", 20, A_INPUTS, A_TO_C),
        ("C", "A", 4, [0, 1, 2, 3], [23, 24, 26, 44]),
    ],
)
def test_location_matches_are_those_of_the_authors_code(
    source: str, target: str, count: int, inputs: list[int], candidates: list[int]
) -> None:
    matches = nearest(location_distances(centres(source), centres(target)), count)
    assert matches.inputs.tolist() == [inputs]
    assert matches.candidates.tolist() == [candidates]


def golden_map(s: int, patches: int) -> Tensor:
    b, p, c = torch.meshgrid(*[torch.arange(n, dtype=torch.float64) for n in (6, patches, 4)], indexing="ij")
    return torch.sin(0.2 * s + 0.71 * b + 0.37 * p + 1.13 * c + 0.011 * (s + 1) * b * p * (c + 1))


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (("B", 2, 49), [28.96109544, 12.41110655, 0.36986192]),
        (("C", 3, 9), [30.85900638, 12.35528706, 0.51488166]),
    ],
)
def test_both_criteria_in_both_directions_give_the_authors_terms_of_a_pair(
    other: tuple[str, int, int], expected: list[float]
) -> None:
    name, s, patches = other
    maps = golden_map(1, 49), golden_map(s, patches)
    places = centres("A", 6), centres(name, 6)
    total = torch.zeros(3, dtype=torch.float64)
    for x, y, count in ((0, 1, 20), (1, 0, 4)):
        by_feature = nearest(feature_distances(maps[x], maps[y]), maps[x].shape[1])
        by_location = nearest(location_distances(places[x], places[y]), count)
        for matches in (by_feature, by_location):
            total += terms(maps[x], maps[y], matches) / 2
    assert total.tolist() == pytest.approx(expected, abs=5e-9, rel=0)


def terms(x: Tensor, y: Tensor, matches: Matches) -> Tensor:
    inputs, candidates = spread(x, matches.inputs), spread(y, matches.candidates)
    agreement = 25 * invariance(x, y, *matches)
    variance = 25 * (inputs.variance + candidates.variance) / 2
    return torch.stack([agreement, variance, (inputs.covariance + candidates.covariance) / 2])


def test_of_equal_distances_the_lower_index_comes_first() -> None:
    matches = nearest(torch.tensor([[[2.0, 1, 1], [1, 1, 1], [0, 3, 3], [1, 0.5, 0.5]]]), 3)
    assert matches.inputs.tolist() == [[0, 2, 3]]
    assert matches.candidates.tolist() == [[1, 0, 1]]


def test_locations_thousands_of_pixels_away_are_told_apart() -> None:
    a = torch.tensor([[[9000.0, 9000.0]]]).expand(1, 30, 2)
    b = torch.stack([torch.full((30,), 9000.0), 9000 + torch.arange(30.0, 0, -1) / 64], dim=1)[None]
    assert nearest(location_distances(a, b), 30).candidates.tolist() == [[29] * 30]


def test_matching_keeps_no_graph_and_computes_in_full_precision() -> None:
    a, b = torch.randn(2, 3, 4).requires_grad_(), torch.randn(2, 5, 4).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        distances = feature_distances(a, b)
    assert not distances.requires_grad
    torch.testing.assert_close(distances, (a.detach()[:, :, None] - b.detach()[:, None]).norm(dim=-1))
