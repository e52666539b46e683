import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from polygrain.objectives.local_contrast import LocalContrast, Negatives
from polygrain.schedules import Time
from polygrain.views import Encoding, View, patch_centres
from tests.references.dense_contrast import dense_slots

NOW = Time(step=0, steps_per_epoch=1, epochs=1)


def bare(negatives: Negatives = "slot", **settings: bool | tuple[int, int]) -> LocalContrast:
    """The objective with patch vectors as their own embeddings."""
    objective = LocalContrast((5, 5), norm="layer", temperature=0.3, negatives=negatives, **settings)  # type: ignore[arg-type]
    objective.projector = nn.Identity()  # type: ignore[assignment]
    return objective


def encoding(seed: int, images: int = 4, box: tuple[float, ...] | None = None) -> Encoding:
    generator = torch.Generator().manual_seed(seed)
    patches = torch.randn(images, 9, 5, dtype=torch.float64, generator=generator)
    boxes = torch.rand(images, 4, generator=generator) * 40 + 20 if box is None else torch.tensor(box).expand(images, 4)
    no = torch.zeros(images, dtype=torch.bool)
    view = View(torch.empty(images, 3, 24, 24), boxes, no, no, torch.arange(images))
    return Encoding(view, patches.mean(1), patches, patch_centres(boxes, no, 3, 3), patches.mean(1))


def searched(source: Tensor, target: Tensor, values: tuple[Tensor, Tensor], kept: int) -> tuple[Tensor, Tensor]:
    """Each of the `kept` nearest rows of an image in raster order, and what it is nearest to: plain loops."""
    x, y = [], []
    for image in range(len(source)):
        pairs = []
        for p, row in enumerate(source[image]):
            distances = [float((row - other).square().sum()) for other in target[image]]
            pairs.append((min(distances), p, distances.index(min(distances))))
        chosen = sorted((p, q) for _, p, q in sorted(pairs)[:kept])
        x.append(torch.stack([values[0][image, p] for p, _ in chosen]))
        y.append(torch.stack([values[1][image, q] for _, q in chosen]))
    return F.normalize(torch.stack(x), dim=2), F.normalize(torch.stack(y), dim=2)


@pytest.mark.parametrize("negatives", ["slot", "flat"])
def test_both_criteria_are_halves_of_two_directions_over_matched_patches(negatives: Negatives) -> None:
    a, b = encoding(0), encoding(1)
    objective = bare(negatives, num_matches=(5, 2))
    total = 0.0
    for criterion, kept in (("feature", (9, 9)), ("location", (5, 2))):
        sides = (a.patches, b.patches) if criterion == "feature" else (a.centres, b.centres)
        forth = searched(sides[0], sides[1], (a.patches, b.patches), kept[0])
        back = searched(sides[1], sides[0], (b.patches, a.patches), kept[1])
        # each of the first two views is a pivot: 5 from a pivot and 2 back, whichever is the pivot
        forth_2 = searched(sides[0], sides[1], (a.patches, b.patches), kept[1])
        back_2 = searched(sides[1], sides[0], (b.patches, a.patches), kept[0])
        values = [dense_slots(x, y, 0.3, across=negatives == "flat") for x, y in (forth, back, forth_2, back_2)]
        total += sum(values) / 4
    assert float(objective([a, b], (), NOW)["nt_xent"]) == pytest.approx(total, rel=1e-9)


def test_crops_of_the_same_place_match_patch_by_patch() -> None:
    a, b = encoding(0, box=(3.0, 5.0, 30.0, 24.0)), encoding(1, box=(3.0, 5.0, 30.0, 24.0))
    objective = bare(feature=False, num_matches=(-1, -1))
    expected = dense_slots(F.normalize(a.patches, dim=2), F.normalize(b.patches, dim=2), 0.3, across=False)
    assert float(objective([a, b], (), NOW)["nt_xent"]) == pytest.approx(expected, rel=1e-9)


def test_the_order_of_images_does_not_matter() -> None:
    order = torch.tensor([2, 0, 3, 1])

    def permuted(e: Encoding) -> Encoding:
        view = View(*(field if field is None else field[order] for field in e.view))
        return Encoding(view, e.pooled[order], e.patches[order], e.centres[order], e.unnormed[order])

    a, b = encoding(0), encoding(1)
    for negatives in ("slot", "flat"):
        objective = bare(negatives)  # type: ignore[arg-type]
        one, other = objective([a, b], (), NOW), objective([permuted(a), permuted(b)], (), NOW)
        assert float(one["nt_xent"]) == pytest.approx(float(other["nt_xent"]), rel=1e-12)


def test_both_sides_of_a_match_receive_gradient() -> None:
    a, b = encoding(0), encoding(1)
    a.patches.requires_grad_()
    b.patches.requires_grad_()
    bare()([a, b], (), NOW)["nt_xent"].backward()
    assert a.patches.grad is not None and a.patches.grad.any()
    assert b.patches.grad is not None and b.patches.grad.any()
