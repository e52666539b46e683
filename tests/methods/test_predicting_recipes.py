"""Recipes of BYOL, SimSiam, SwAV, DeepCluster-v2 and PCL against the values of their authors."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from polygrain.methods import METHODS
from polygrain.parts.encoder import Encoder, EncoderSettings
from polygrain.schedules import RunLength, Time

RECIPES = Path(__file__).parents[2] / "src" / "polygrain" / "recipes"
TWO = [(2, 224, (0.08, 1.0))]
MULTI = [(2, 224, (0.14, 1.0)), (6, 96, (0.05, 0.14))]
MOCO = (1, 224, (0.2, 1.0))

# name: epochs, batch, learning rate of the first step, at its highest and of the last, weight decay, crops
PUBLISHED: dict[str, tuple[int, int, float, float, float, float, list[Any]]] = {
    "byol-resnet50-40ep": (40, 4096, 0.0, 7.2, 0.0, 1e-6, TWO),
    "byol-resnet50-100ep": (100, 4096, 0.0, 7.2, 0.0, 1e-6, TWO),
    "byol-resnet50-300ep": (300, 4096, 0.0, 4.8, 0.0, 1e-6, TWO),
    "byol-resnet50-1000ep": (1000, 4096, 0.0, 3.2, 0.0, 1.5e-6, TWO),
    "simsiam-resnet50-100ep": (100, 512, 0.1, 0.1, 2.467e-5, 1e-4, [(2, 224, (0.2, 1.0))]),
    "simsiam-resnet50-100ep-bs256": (100, 256, 0.05, 0.05, 1.2336e-5, 1e-4, [(2, 224, (0.2, 1.0))]),
    **{f"swav-resnet50-{e}ep": (e, 4096, 0.3, 4.8, 0.0048, 1e-6, MULTI) for e in (100, 200, 400, 800)},
    **{f"swav-resnet50-{e}ep-bs256": (e, 256, 0.6, 0.6, 0.0006, 1e-6, MULTI) for e in (200, 400)},
    "swav-resnet50-400ep-2x224": (400, 4096, 0.3, 4.8, 0.0048, 1e-6, TWO),
    "deepclusterv2-resnet50-800ep": (800, 4096, 0.3, 4.8, 0.0048, 1e-6, MULTI),
    "deepclusterv2-resnet50-400ep": (
        400, 4096, 0.3, 4.8, 0.0048, 1e-6, [(2, 160, (0.08, 1.0)), (4, 96, (0.05, 0.14))],
    ),
    "deepclusterv2-resnet50-400ep-2x224": (400, 4096, 0.3, 4.8, 0.0048, 1e-6, TWO),
    "pcl-resnet50-200ep": (200, 256, 0.03, 0.03, 1.85e-6, 1e-4, [MOCO, MOCO]),
}  # fmt: skip


def test_every_published_run_has_a_recipe_and_every_recipe_is_one() -> None:
    found = {
        path.stem for name in ("byol", "simsiam", "swav", "deepclusterv2", "pcl") for path in RECIPES.glob(f"{name}-*")
    }
    assert found == set(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_recipe_holds_the_published_values(name: str) -> None:
    epochs, batch, first, peak, last, decay, crops = PUBLISHED[name]
    recipe = yaml.safe_load((RECIPES / f"{name}.yaml").read_text())
    assert (recipe["epochs"], recipe["batch_size"]) == (epochs, batch)
    own = {key: tuple(v) if isinstance(v, list) else v for key, v in recipe[recipe["method"]].items()}
    settings: Any = METHODS[recipe["method"]](**own)
    with torch.device("meta"):
        encoder = Encoder(EncoderSettings(name=recipe["encoder"], arguments=recipe.get("encoder_args", {})))
        method = settings.build(encoder)
    assert [(c.count, c.size, c.scale) for c in method.crops] == crops
    per_epoch = 1281167 // batch
    optimization = settings.optimization(RunLength(1281167, batch, epochs, per_epoch))
    rates = [
        optimization.lr(Time(step, per_epoch, epochs)) for step in range(0, 11 * per_epoch, 1 + 10 * (batch < 4096))
    ]
    assert rates[0] == pytest.approx(first) and max(rates) == pytest.approx(peak, rel=1e-3)
    assert optimization.lr(Time(epochs * per_epoch - 1, per_epoch, epochs)) == pytest.approx(
        last, rel=1e-2, abs=1e-4 * peak
    )
    assert optimization.weight_decay(Time(0, per_epoch, epochs)) == decay
    assert optimization.decay_all == (recipe["method"] != "byol")


def test_the_predictor_of_simsiam_keeps_its_learning_rate() -> None:
    optimization = METHODS["simsiam"]().optimization(RunLength(51200, 512, 100, 100))
    assert optimization.constant_lr == pytest.approx(0.1) and optimization.constant_lr_of == ".predictor."


@pytest.mark.parametrize(("epochs", "start"), [(40, 0.97), (100, 0.99), (300, 0.99), (1000, 0.996)])
def test_the_teacher_of_byol_begins_at_its_momentum_and_ends_at_1(epochs: int, start: float) -> None:
    recipe = yaml.safe_load((RECIPES / f"byol-resnet50-{epochs}ep.yaml").read_text())
    with torch.device("meta"):
        method = METHODS["byol"](**recipe["byol"]).build(Encoder(EncoderSettings(name="resnet50")))
    assert method.momentum is not None
    assert method.momentum(Time(0, 10, epochs)) == pytest.approx(start)
    assert method.momentum(Time(10 * epochs, 10, epochs)) == pytest.approx(1)


def test_an_epsilon_too_small_for_float32_is_refused() -> None:
    with pytest.raises(ValueError, match=r"epsilon is 0\.01; it must be 0\.025 or more"):
        METHODS["swav"](epsilon=0.01)  # type: ignore[call-arg]
