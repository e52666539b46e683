"""First convolutions of timm models, adapted."""

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn


def adapt_stem(tensors: Mapping[str, Tensor], model: Any) -> dict[str, Tensor]:
    """A timm model's tensors with the weights of the first convolution brought to the channels of `model`.

    timm's rule: to one channel they are summed, so that a gray image gives what three equal channels gave; to more they
    are repeated in turn and divided by as much as there are more of them, so that equal channels give the same.

    Args:
        tensors: by timm's names, of a model of the same architecture.

    Raises:
        ValueError: when they are for neither one nor three channels, nor for as many as the model has.
    """
    names = model.pretrained_cfg["first_conv"]
    adapted = dict(tensors)
    for name in (names,) if isinstance(names, str) else names:
        key = f"{name}.weight"
        if key in tensors:
            adapted[key] = _adapted(tensors[key], model.get_submodule(name).weight.shape[1])
    return adapted


def _adapted(weight: Tensor, channels: int) -> Tensor:
    have = weight.shape[1]
    if have == channels:
        return weight
    if have not in (1, 3):
        raise ValueError(
            f"these weights are for images of {have} channels, not {channels}; only those for 1 or 3 can be adapted"
        )
    if channels == 1:
        return weight.sum(1, keepdim=True)
    return weight.repeat(1, math.ceil(channels / have), 1, 1)[:, :channels] * (have / channels)


def use_small_stem(model: Any) -> None:
    """One 3x3 convolution of stride 1 and no max-pooling: four times the resolution (ResNets for small images)."""
    model.conv1 = nn.Conv2d(model.conv1.in_channels, model.conv1.out_channels, kernel_size=3, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()
    for level in model.feature_info:
        level["reduction"] = max(1, level["reduction"] // 4)
