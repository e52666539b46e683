import pytest
import torch
from torch import Tensor, nn

from polygrain.objectives.vicreg import Convention, Global
from polygrain.schedules import Time
from polygrain.views import Crops, Encoding, View

NOW = Time(step=0, steps_per_epoch=1, epochs=1)


def encoding(pooled: Tensor) -> Encoding:
    images = len(pooled)
    none = torch.zeros(images, dtype=torch.bool)
    view = View(torch.empty(images, 3, 8, 8), torch.zeros(images, 4), none, none, torch.arange(images))
    return Encoding(view, pooled, pooled[:, None], torch.zeros(images, 1, 2), pooled)


def bare(convention: Convention = "vicregl") -> Global:
    """The objective with pooled vectors as their own embeddings."""
    objective = Global((5, 5, 5, 5), norm="layer", covariance_of=convention)
    objective.expander = nn.Identity()  # type: ignore[assignment]
    return objective


def test_terms_of_four_views_are_those_of_the_authors_code() -> None:
    b, c = torch.meshgrid(*[torch.arange(n, dtype=torch.float64) for n in (6, 5)], indexing="ij")
    views = [encoding(torch.sin(0.3 + (v + 1) * 0.37 * b + 0.61 * c + 0.013 * v * b * c)) for v in range(4)]
    terms = bare()(views, (), NOW)
    assert [float(t) for t in terms.values()] == pytest.approx([19.96876183, 8.22609176, 0.41506675], abs=5e-9, rel=0)


def vicreg(x: Tensor, y: Tensor) -> list[float]:
    """The formula of VICReg's code, written out: covariances are added, variances halved."""
    hinge = [torch.relu(1 - (z.var(0) + 1e-4).sqrt()).mean() for z in (x, y)]
    covariances = [torch.cov(z.T) for z in (x, y)]
    energy = [(c - c.diag().diag()).square().sum() / x.shape[1] for c in covariances]
    return [float(t) for t in (25 * (x - y).square().mean(), 25 * (hinge[0] / 2 + hinge[1] / 2), energy[0] + energy[1])]


def test_of_two_views_vicreg_adds_the_covariances_and_vicregl_takes_half() -> None:
    x, y = torch.randn(2, 7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = vicreg(x, y)
    of_vicreg = [float(t) for t in bare("vicreg")([encoding(x), encoding(y)], (), NOW).values()]
    of_vicregl = [float(t) for t in bare("vicregl")([encoding(x), encoding(y)], (), NOW).values()]
    assert of_vicreg == pytest.approx(expected)
    assert of_vicregl == pytest.approx([expected[0], expected[1], expected[2] / 2])


def test_constant_embeddings_show_collapse() -> None:
    objective = bare()
    terms = objective([encoding(torch.ones(4, 5)), encoding(torch.ones(4, 5))], (), NOW)
    assert [float(t) for t in terms.values()] == pytest.approx([0, 24.75, 0])
    assert float(objective.gauges["embedding_std"]) == 0


def test_gauge_of_white_noise_is_near_one() -> None:
    objective = bare()
    noise = torch.randn(2000, 40, generator=torch.Generator().manual_seed(0))
    objective([encoding(noise), encoding(noise)], (), NOW)
    assert float(objective.gauges["embedding_std"]) == pytest.approx(1, abs=0.02)


def test_a_student_with_one_view_is_refused() -> None:
    crops = Crops(name="large", count=1, size=64, scale=(0.4, 1), recipes=("byol_a",))
    reason = bare().refuses((crops,), ())
    assert reason == "the global criterion compares at least two views; this method's student sees 1"
