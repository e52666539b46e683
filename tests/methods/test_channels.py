"""Every method on images that are not RGB."""

import dataclasses

import pytest
import torch
from torch import Tensor

from polygrain.data.images import Images
from polygrain.data.loading import ViewBatches
from polygrain.data.measuring import measure_normalisation
from polygrain.methods import METHODS
from polygrain.parts.encoder import Encoder, EncoderSettings
from polygrain.schedules import Time

SMALL = {"large_size": 32, "small_size": 16, "hidden": 32, "out": 16, "prototypes": 16, "queue_size": 16}
SMALL |= {"memory_size": 16, "neighbours": 2, "expander_width": 32, "local_width": 16, "predictor_hidden": 32}


class Noise(Images):
    def __init__(self, channels: int) -> None:
        super().__init__(8)
        self.channels = channels

    def name(self, i: int) -> str:
        return str(i)

    def load(self, i: int) -> Tensor:
        generator = torch.Generator().manual_seed(i)
        return torch.randint(0, 20 * i + 60, (self.channels, 40 + i, 50), dtype=torch.uint8, generator=generator)


# which need clusters or labels first, or never train the stem
OTHERS = {"deepclusterv2", "supervised", "mocov3"}


@pytest.mark.parametrize("channels", [1, 5])
@pytest.mark.parametrize("name", sorted(METHODS.keys() - OTHERS))
def test_a_step_moves_the_stem_whatever_the_channels(name: str, channels: int):
    known = {field.name for field in dataclasses.fields(METHODS[name])}
    settings = METHODS[name](**{key: value for key, value in SMALL.items() if key in known})
    arguments = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2}
    torch.manual_seed(0)
    encoder = Encoder(EncoderSettings(name="vit_small_patch16_224", arguments=arguments, channels=channels))
    method = settings.build(encoder).train()
    images = Noise(channels)
    batches = ViewBatches(images, method.crops, seed=0, normalisation=measure_normalisation(images))
    losses = method(batches.__getitems__([(0, i) for i in range(8)]).views, Time(30, 10, 10))
    total = torch.stack(list(losses.values())).sum()
    total.backward()
    gradient = method.student.model.patch_embed.proj.weight.grad
    assert total.isfinite()
    assert gradient.shape == (32, channels, 8, 8)
    assert (gradient.abs().amax((0, 2, 3)) > 0).all()  # every channel counts
