from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from polygrain.methods import METHODS
from polygrain.parts.encoder import Encoder, EncoderSettings
from polygrain.schedules import RunLength, Time

RECIPES = Path(__file__).parents[2] / "src" / "polygrain" / "recipes"

# name: epochs, batch, highest learning rate, weight decay, least share of the image: as the authors have them
PUBLISHED: dict[str, tuple[int, int, float, float, float]] = {
    "simclr-resnet50-100ep": (100, 4096, 4.8, 1e-4, 0.08),
    "simclr-resnet50-1000ep": (1000, 4096, 4.8, 1e-6, 0.08),
    "simclr_l-resnet50-300ep": (300, 2048, 1.6, 1e-6, 0.08),
    "mocov2-resnet50-200ep": (200, 256, 0.03, 1e-4, 0.2),
    "mocov2-resnet50-800ep": (800, 256, 0.03, 1e-4, 0.2),
    "mocov3-resnet50-100ep": (100, 4096, 9.6, 1e-6, 0.2),
    "mocov3-resnet50-300ep": (300, 4096, 4.8, 1e-6, 0.2),
    "mocov3-resnet50-1000ep": (1000, 4096, 4.8, 1.5e-6, 0.2),
    "mocov3-vits16-300ep": (300, 4096, 2.4e-3, 0.1, 0.08),
    "mocov3-vitb16-300ep": (300, 4096, 2.4e-3, 0.1, 0.08),
    "barlow_twins-resnet50-1000ep": (1000, 2048, 1.6, 1e-6, 0.08),
}


def test_every_published_run_has_a_recipe_and_every_recipe_is_one() -> None:
    families = ("simclr", "mocov2", "mocov3", "barlow_twins")
    assert {path.stem for family in families for path in RECIPES.glob(f"{family}*.yaml")} == set(PUBLISHED)


@pytest.mark.filterwarnings("ignore:shuffled batch norm does nothing")
@pytest.mark.parametrize("name", PUBLISHED)
def test_recipe_holds_the_published_values(name: str) -> None:
    epochs, batch, peak, decay, least = PUBLISHED[name]
    recipe = yaml.safe_load((RECIPES / f"{name}.yaml").read_text())
    assert (recipe["epochs"], recipe["batch_size"]) == (epochs, batch)
    own = {key: tuple(v) if isinstance(v, list) else v for key, v in recipe[recipe["method"]].items()}
    settings: Any = METHODS[recipe["method"]](**own)
    with torch.device("meta"):
        encoder = Encoder(EncoderSettings(name=recipe["encoder"], arguments=recipe.get("encoder_args", {})))
        method = settings.build(encoder)
    assert {(c.size, c.scale) for c in method.crops} == {(224, (least, 1.0))}
    steps = 1281167 // batch
    optimization = settings.optimization(RunLength(1281167, batch, epochs, steps))
    rates = [optimization.lr(Time(step, steps, epochs)) for step in range(0, 20000, 5)]
    assert max(rates) == pytest.approx(peak, rel=1e-5)
    assert optimization.weight_decay(Time(0, steps, epochs)) == decay
    if "vits16" in name:
        assert encoder.model.blocks[0].attn.num_heads == 12
