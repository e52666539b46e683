"""Layer-wise learning rates for fine-tuning: the deeper a layer, the less it was to change, the faster it learns."""

from typing import Any

from timm.models import group_parameters
from torch import Tensor, nn

from polygrain.parts.encoder import Encoder

FINAL_NORMS = {"vit": ("model.norm.",), "resnet": (), "convnext": ("model.norm_pre.",)}
POSITIONS = ("cls_token", "reg_token", "pos_embed", "mask_token")


def layer_ids(encoder: Encoder) -> dict[str, int]:
    """The layer of each parameter, by its name in the encoder.

    A ViT of N blocks: embeddings 0, block i (counted from 0) i + 1, the final norm N + 1. The stem of a ResNet or
    ConvNeXt is 0 and its stages are 1 to 4. (BEiT, arXiv:2106.08254, official `optim_factory.py`; ids are timm's but
    for final norms, which timm joins with the last block.)
    """
    matcher = encoder.model.group_matcher(coarse=encoder.family != "vit")
    ids = {f"model.{name}": layer for name, layer in group_parameters(encoder.model, matcher, reverse=True).items()}
    ids |= {name: last_layer(encoder) for name in ids if name.startswith(FINAL_NORMS[encoder.family])}
    return ids if encoder.mask_token is None else {**ids, "mask_token": 0}


def last_layer(encoder: Encoder) -> int:
    """The layer of all that is no part of the encoder: one more than its blocks or stages."""
    return (encoder.depth if encoder.family == "vit" else 4) + 1


def layer_groups(
    model: nn.Module,
    encoder: Encoder,
    *,
    lr: float,
    weight_decay: float,
    layer_decay: float,
    decay_positions: bool = False,
) -> list[dict[str, Any]]:
    """Parameter groups for an optimizer: layer l learns with lr * layer_decay ** (last layer - l).

    The factor is multiplied into the `lr` of each group, so any scheduler of torch that scales it keeps the ratios.
    `timm.optim.param_groups_layer_decay` gives all groups the same `lr` and leaves a factor beside it that only timm's
    schedulers apply.

    Args:
        model: all that trains; holds the encoder. Its other parameters are in the last layer.
        decay_positions: position codes and the class token get weight decay too. Biases, norms and other vectors never
            do.

    Returns:
        Groups with `params`, `lr`, `weight_decay`, and `layer`, by layer.
    """
    last = last_layer(encoder)
    own = dict(encoder.named_parameters())
    found = {id(own[name]): layer for name, layer in layer_ids(encoder).items()}
    groups: dict[tuple[int, bool], list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            spared = name.rpartition(".")[2] in POSITIONS and not decay_positions
            decays = parameter.ndim > 1 and not spared
            groups.setdefault((found.get(id(parameter), last), decays), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": lr * layer_decay ** (last - layer),
            "weight_decay": weight_decay if decays else 0.0,
            "layer": layer,
        }
        for (layer, decays), parameters in sorted(groups.items(), key=lambda group: group[0])
    ]
