"""Recipes of DINO, iBOT, MST and MAE against the values of their authors."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from polygrain.methods import METHODS
from polygrain.parts.encoder import Encoder, EncoderSettings
from polygrain.schedules import RunLength, Time

RECIPES = Path(__file__).parents[2] / "src" / "polygrain" / "recipes"
SHORT = [(2, 224, (0.4, 1.0)), (8, 96, (0.05, 0.4))]
LONG = [(2, 224, (0.25, 1.0)), (10, 96, (0.05, 0.25))]
MAE = [(1, 224, (0.2, 1.0))]

# name: epochs, batch, highest and last learning rate, weight decay at both ends, clipping, crops
PUBLISHED: dict[str, tuple[int, int, float, float, tuple[float, float], float | None, list[Any]]] = {
    "dino-vits16-100ep": (100, 512, 1e-3, 1e-6, (0.04, 0.4), 3.0, SHORT),
    "dino-vits16-300ep": (300, 1024, 2e-3, 1e-6, (0.04, 0.4), 3.0, SHORT),
    "dino-vits16-800ep": (800, 1024, 2e-3, 1e-5, (0.04, 0.4), None, LONG),
    "dino-vitb16-400ep": (400, 1024, 3e-3, 2e-6, (0.04, 0.4), 0.3, LONG),
    "dino-resnet50-100ep": (100, 512, 0.06, 1e-6, (1e-4, 1e-4), 3.0, [(2, 224, (0.14, 1.0)), (8, 96, (0.05, 0.14))]),
    "dino-resnet50-800ep": (
        800,
        4080,
        4.78125,
        0.0048,
        (1e-6, 1e-6),
        None,
        [(2, 224, (0.14, 1.0)), (6, 96, (0.05, 0.14))],
    ),
    "ibot-vits16-800ep": (800, 1024, 2e-3, 1e-6, (0.04, 0.4), 3.0, LONG),
    **{f"mst-vits16-{e}ep": (e, 1024, 2e-3, 1e-6, (0.04, 0.4), 3.0, SHORT) for e in (100, 300)},
    **{f"mae-vit{s}16-{e}ep": (e, 4096, 2.4e-3, 0.0, (0.05, 0.05), None, MAE) for s in "bl" for e in (800, 1600)},
}


def test_every_published_run_has_a_recipe_and_every_recipe_is_one() -> None:
    assert {path.stem for name in ("dino", "ibot", "mst", "mae") for path in RECIPES.glob(f"{name}-*")} == set(
        PUBLISHED
    )


@pytest.mark.parametrize("name", PUBLISHED)
def test_recipe_holds_the_published_values(name: str) -> None:
    epochs, batch, peak, last, decay, clip, crops = PUBLISHED[name]
    recipe = yaml.safe_load((RECIPES / f"{name}.yaml").read_text())
    assert (recipe["epochs"], recipe["batch_size"]) == (epochs, batch)
    settings = METHODS[recipe["method"]](**recipe[recipe["method"]])
    steps = 1_281_167 // batch
    optimization = settings.optimization(RunLength(1_281_167, batch, epochs, steps))
    times = [Time(i * steps * epochs // 200, steps, epochs) for i in range(200)]
    assert max(optimization.lr(time) for time in times) == pytest.approx(peak, rel=1e-2)
    end = Time(steps * epochs - 1, steps, epochs)
    assert optimization.lr(end) == pytest.approx(last, rel=1e-3, abs=1e-8)
    ends = optimization.weight_decay(times[0]), optimization.weight_decay(end)
    assert ends == pytest.approx(decay, rel=1e-3)
    assert (optimization.clip and optimization.clip(end)) == clip
    with torch.device("meta"):
        method = settings.build(Encoder(EncoderSettings(name=recipe["encoder"])))
    assert [(c.count, c.size, tuple(c.scale)) for c in method.crops] == [(n, s, tuple(scale)) for n, s, scale in crops]
