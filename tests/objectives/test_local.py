from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from polygrain.objectives.local import Local
from polygrain.schedules import Time
from polygrain.views import Crops, Encoding, View, patch_centres
from tests.references.dense_local_criterion import local_criterion

NOW = Time(step=0, steps_per_epoch=1, epochs=1)
TERMS = ("invariance", "variance", "covariance")


def encoding(patches: Tensor, box: Tensor, *, size: int, flipped: Tensor | None = None) -> Encoding:
    """What an encoder with this map would hand over; `box` is (4,) for all images or (B, 4)."""
    images, cells = patches.shape[0], round(patches.shape[1] ** 0.5)
    box = box.expand(images, 4)
    flipped = torch.zeros(images, dtype=torch.bool) if flipped is None else flipped
    view = View(torch.empty(images, 3, size, size), box, flipped, flipped.clone().zero_(), torch.arange(images))
    return Encoding(view, patches.mean(1), patches, patch_centres(box, flipped, cells, cells), patches.mean(1))


def bare(**settings: Any) -> Local:
    """The objective with patches as their own local embeddings."""
    objective = Local((4, 4, 4, 4), norm="layer", small_crops=True, **settings)
    objective.projector = nn.Identity()  # type: ignore[assignment]
    return objective


def values(objective: Local, views: Sequence[Encoding]) -> list[float]:
    terms = objective(views, (), NOW)
    return [float(terms[name].detach()) for name in TERMS]


def golden_map(s: int, patches: int) -> Tensor:
    b, p, c = torch.meshgrid(*[torch.arange(n, dtype=torch.float64) for n in (6, patches, 4)], indexing="ij")
    return torch.sin(0.2 * s + 0.71 * b + 0.37 * p + 1.13 * c + 0.011 * (s + 1) * b * p * (c + 1))


def official_grid(box: Tensor, cells: int) -> Tensor:
    """Centres as the authors add them up, step by step in float32.

    Views 2 and 3 below cut the same box, which makes ties among their matches: which pairs are the 20 nearest is
    decided by the rounding of this sum.
    """
    top, left, height, width = box.unbind()
    y, x = [top + height / cells / 2], [left + width / cells / 2]
    for _ in range(cells - 1):
        y.append(y[-1] + height / cells)
        x.append(x[-1] + width / cells)
    return torch.stack([torch.stack([row, column]) for row in y for column in x])


def golden_views() -> list[Encoding]:
    boxes = torch.tensor([[10.0, 20, 70, 140], [33.0, 61, 101, 73], [33.0, 61, 101, 73]])
    views = [
        encoding(golden_map(s, cells**2), box, size=32 * cells)
        for s, cells, box in zip((1, 2, 3), (7, 7, 3), boxes, strict=True)
    ]
    grids = [official_grid(box, cells).expand(6, -1, -1) for box, cells in zip(boxes, (7, 7, 3), strict=True)]
    for view, grid in zip(views, grids, strict=True):
        torch.testing.assert_close(view.centres, grid, atol=3e-5, rtol=0)
    return [view._replace(centres=grid) for view, grid in zip(views, grids, strict=True)]


@pytest.mark.parametrize("num_matches", [(20, 4), None])
def test_terms_of_three_views_are_those_of_the_authors_code(num_matches: tuple[int, int] | None) -> None:
    terms = values(bare(num_matches=num_matches), golden_views())
    assert terms == pytest.approx([29.6629867, 12.57454885, 0.4255589], abs=5e-8, rel=0)


def random_views(
    images: int = 6, large: int = 2, small: int = 2, dim: int = 4, scale: float = 0.8, seed: int = 0
) -> list[Encoding]:
    generator = torch.Generator().manual_seed(seed)
    views = []
    for size, side in [(64, 4)] * large + [(32, 2)] * small:
        patches = scale * torch.randn(images, side * side, dim, dtype=torch.float64, generator=generator)
        box = torch.rand(images, 4, generator=generator) * 50 + 30
        flipped = torch.rand(images, generator=generator) < 0.5
        views.append(encoding(patches.requires_grad_(), box, size=size, flipped=flipped))
    return views


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"feature": False},
        {"location": False},
        {"all_feature_matches": False},
    ],
)
@pytest.mark.parametrize("views", [(2, 2), (3, 0), (2, 0)])
@pytest.mark.parametrize("dim", [4, 9])  # fewer and more than the six images
def test_value_and_gradient_are_those_of_the_straightforward_criterion(
    settings: dict[str, Any], views: tuple[int, int], dim: int
) -> None:
    ours, theirs = (random_views(large=views[0], small=views[1], dim=dim) for _ in range(2))
    mine = torch.stack([*bare(num_matches=(5, 2), **settings)(ours, (), NOW).values()])
    dense = torch.stack(local_criterion([v.patches for v in theirs], [v.centres for v in theirs], (5, 2), **settings))
    torch.testing.assert_close(mine, dense)
    weights = torch.tensor([1.0, 0.3, 2.0], dtype=torch.float64)
    (mine @ weights).backward()
    (dense @ weights).backward()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.patches.grad, other.patches.grad)


def test_spread_once_takes_variance_and_covariance_of_whole_maps_averaged_over_views() -> None:
    views = random_views()
    invariance, variance, covariance = values(bare(num_matches=(5, 2), spread_once=True), views)
    assert invariance == pytest.approx(values(bare(num_matches=(5, 2)), views)[0])
    hinge, energy = [], []
    for view in views:
        x = view.patches.detach()
        hinge.append(float(torch.relu(1 - (x.var(0) + 1e-4).sqrt()).mean()))
        slots = [torch.cov(x[:, p].T) for p in range(x.shape[1])]
        energy.append(sum(float((c - c.diag().diag()).square().sum()) / 4 for c in slots) / len(slots))
    assert variance == pytest.approx(25 * sum(hinge) / len(views))
    assert covariance == pytest.approx(sum(energy) / len(views))


def position_coded(box: Tensor, flipped: Tensor, side: int, size: int) -> Encoding:
    """Views whose pixels are their own positions in the source image, and patches that are what their pixels show."""
    images = len(box)
    y, x = patch_centres(box, torch.zeros_like(flipped), size, size).view(images, size, size, 2).unbind(3)
    pixels = torch.stack([y, x, y], dim=1)
    pixels = torch.where(flipped[:, None, None, None], pixels.flip(3), pixels)  # the crop is mirrored after cutting
    patches = nn.functional.adaptive_avg_pool2d(pixels, side)[:, :2].flatten(2).mT
    view = View(pixels, box, flipped, torch.zeros_like(flipped), torch.arange(images))
    return Encoding(view, patches.mean(1), patches, patch_centres(box, flipped, side, side), patches.mean(1))


def test_location_matches_show_the_same_place_however_views_are_mirrored() -> None:
    """Both views cut the same box, so matched patches must be equal; the official grid gets mirrored pairs wrong."""
    box = torch.tensor([[5.0, 9, 64, 96]]).expand(4, 4)
    one = position_coded(box, torch.tensor([False, True, False, True]), 4, 32)
    other = position_coded(box, torch.tensor([False, False, True, True]), 4, 32)
    mirrored = {"feature": False, "num_matches": (-1, -1)}
    assert values(bare(**mirrored), [one, other])[0] == pytest.approx(0, abs=1e-3)
    # unmirrored, columns at 12, 36, 60, 84 px meet those mirrored in images 1 and 2: x differs by 72, 24, 24, 72
    expected = 25 * (2 / 4) * (72**2 + 24**2) / 2 / 2
    assert values(bare(**mirrored, flip_grid=False), [one, other])[0] == pytest.approx(expected, rel=1e-4)


def test_patches_that_match_by_feature_need_not_lie_at_the_same_place() -> None:
    views = random_views(small=0)
    shuffled = views[0].patches.detach()[:, torch.randperm(16, generator=torch.Generator().manual_seed(1))]
    other = views[1]._replace(patches=shuffled)
    assert values(bare(location=False), [views[0], other])[0] == pytest.approx(0, abs=1e-6)
    assert values(bare(feature=False), [views[0], other])[0] > 1


def test_added_to_other_methods_small_crops_are_left_out_wherever_they_stand() -> None:
    large, small = random_views()[:2], random_views()[2:]
    settings: dict[str, Any] = {"num_matches": (5, 2)}
    cheap = Local((4, 4, 4, 4), norm="layer", **settings)
    cheap.projector = nn.Identity()  # type: ignore[assignment]
    assert values(cheap, [*small, *large]) == values(bare(**settings), large)
    assert values(bare(**settings), [*small, *large]) == values(bare(**settings), [*large, *small])


def test_constant_patches_cost_the_whole_variance_term_of_both_criteria() -> None:
    views = [v._replace(patches=torch.ones_like(v.patches)) for v in random_views()]
    assert values(bare(num_matches=(5, 2)), views) == pytest.approx([0, 2 * 24.75, 0])


def test_by_default_the_papers_share_of_the_map_is_matched() -> None:
    """20 and 4 of a 7 x 7 map are 80 and 16 of a 14 x 14 map; a map of 4 patches gets 2 and 1."""
    for side, expected in ((7, (20, 4)), (14, (80, 16)), (2, (2, 1))):
        generator = torch.Generator().manual_seed(0)
        maps = [torch.randn(3, side * side, 2, dtype=torch.float64, generator=generator) for _ in range(2)]
        boxes = torch.tensor([[0.0, 0, 70, 70]]), torch.tensor([[11.0, 23, 59, 47]])
        views = [encoding(m, box, size=32) for m, box in zip(maps, boxes, strict=True)]
        share = values(bare(feature=False), views)
        assert share == values(bare(feature=False, num_matches=expected), views)


def test_more_matches_than_patches_are_refused() -> None:
    with pytest.raises(ValueError, match="asks for 20 of the 16 patches of a view; give at most 16"):
        values(bare(num_matches=(20, 4)), random_views())


def test_a_student_with_one_large_view_is_refused() -> None:
    large = Crops(name="large", count=1, size=64, scale=(0.4, 1), recipes=("byol_a",))
    small = Crops(name="small", count=6, size=32, scale=(0.1, 0.4), recipes=("byol_a",))
    reason = bare().refuses((large, small), ())
    assert reason == "local matching needs at least two views of the largest size; this method's student sees 1"
    assert bare().refuses((small,), ()) is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"feature": False, "location": False}, "switched off both by feature and by location"),
        ({"num_matches": (0, 4)}, r"num_matches is \(0, 4\); each must be 1 or more, or -1"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bare(**settings)


def test_batch_norm_of_the_projector_sees_every_patch_as_a_row() -> None:
    objective = Local((4, 6, 6, 5), norm="batch")
    rows = torch.randn(3, 16, 4)
    torch.testing.assert_close(objective.project(rows).flatten(0, 1), objective.projector(rows.flatten(0, 1)))


def test_terms_stay_in_full_precision_under_autocast() -> None:
    objective = Local((4, 6, 6, 5), norm="layer", num_matches=(5, 2))
    views = [v._replace(patches=v.patches.detach().float()) for v in random_views()]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = objective(views, (), NOW)
    assert {t.dtype for t in terms.values()} == {torch.float32}
