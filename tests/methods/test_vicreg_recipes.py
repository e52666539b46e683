from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from polygrain.methods import METHODS
from polygrain.parts.encoder import Encoder, EncoderSettings
from polygrain.schedules import RunLength, Time

RECIPES = Path(__file__).parents[2] / "src" / "polygrain" / "recipes"

# name: epochs, batch, highest learning rate, weight decay, crops: as the authors' README has them
PUBLISHED: dict[str, tuple[int, int, float, float, list[Any]]] = {
    "vicreg-resnet50-100ep": (100, 512, 0.6, 1e-6, [(2, 224, (0.08, 1.0))]),
    "vicreg-resnet50-1000ep": (1000, 2048, 1.6, 1e-6, [(2, 224, (0.08, 1.0))]),
    "vicregl-resnet50-100ep": (100, 512, 0.6, 1e-6, [(2, 224, (0.08, 1.0))]),
    "vicregl-resnet50-300ep": (300, 2048, 1.6, 1e-6, [(2, 224, (0.08, 1.0))]),
    "vicregl-convnexts-100ep": (100, 384, 1.125e-3, 0.05, [(2, 224, (0.4, 1.0)), (6, 96, (0.08, 0.4))]),
    "vicregl-convnextb-400ep": (400, 576, 1.125e-3, 0.05, [(2, 224, (0.4, 1.0)), (6, 96, (0.08, 0.4))]),
}


def test_every_published_run_has_a_recipe_and_every_recipe_is_one() -> None:
    assert {path.stem for path in RECIPES.glob("vicreg*.yaml")} == set(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_recipe_holds_the_published_values(name: str) -> None:
    epochs, batch, peak, decay, crops = PUBLISHED[name]
    recipe = yaml.safe_load((RECIPES / f"{name}.yaml").read_text())
    assert (recipe["epochs"], recipe["batch_size"]) == (epochs, batch)
    own = {key: tuple(v) if isinstance(v, list) else v for key, v in recipe[recipe["method"]].items()}
    settings: Any = METHODS[recipe["method"]](**own)
    with torch.device("meta"):
        encoder = Encoder(EncoderSettings(name=recipe["encoder"], arguments=recipe.get("encoder_args", {})))
        method = settings.build(encoder)
    assert [(c.count, c.size, c.scale) for c in method.crops] == crops
    optimization = settings.optimization(RunLength(1281167, batch, epochs, -(-1281167 // batch)))
    steps = [Time(step, -(-1281167 // batch), epochs) for step in range(0, 50000)]
    assert max(map(optimization.lr, steps)) == pytest.approx(peak)
    assert optimization.weight_decay(steps[0]) == decay
    assert method.weights == ({"global": 1.0} if "vicregl" not in name else {"global": 0.75, "local": 0.25})
