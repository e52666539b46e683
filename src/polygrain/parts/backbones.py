"""The timm models that an encoder can be made of."""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import timm
from timm.models.convnext import ConvNeXt
from timm.models.resnet import ResNet
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from polygrain.parts.sizes import ENCODERS, ReadyMade
from polygrain.parts.stems import use_small_stem

Family = Literal["vit", "resnet", "convnext"]
# What timm raises at arguments that cannot be: a patch of 0 divides by it, a negative depth fails in torch ...
TIMM_REFUSALS = (TypeError, AssertionError, ArithmeticError, LookupError, AttributeError, RuntimeError)
FAMILIES: dict[Family, type[nn.Module]] = {"vit": VisionTransformer, "resnet": ResNet, "convnext": ConvNeXt}


@dataclass(frozen=True, kw_only=True)
class EncoderSettings:
    """Which backbone, and how it is built.

    Args:
        name: a timm model (ViT, ResNet or ConvNeXt), or a ready-made one such as `vit_small_64`.
        pretrained: start from timm's weights (downloads them).
        position: how a ViT's position codes reach other crop sizes: timm's resampling, or that of DINO and Mugs.
        arguments: passed to timm (img_size, patch_size, embed_dim, depth, num_heads, drop_path_rate ...); unlike
            in `timm.create_model`, None is passed too.
        channels: of the images. Pretrained weights of three channels are adapted, see `adapt_stem`.
        checkpointing: recompute activations in the backward pass: less memory, more time.
    """

    name: str = "vit_small_patch16_224"
    pretrained: bool = False
    position: Literal["timm", "dino"] = "timm"
    arguments: Mapping[str, Any] = field(default_factory=dict)
    channels: int = 3
    checkpointing: bool = False


def family(model: nn.Module) -> Family:
    for name, kind in FAMILIES.items():
        if isinstance(model, kind):
            return name
    raise ValueError(f"{type(model).__name__} is not among the backbones used here: timm's ViT, ResNet and ConvNeXt")


def create(settings: EncoderSettings) -> Any:
    """The timm model that the settings describe, without classifier, able to take any crop size."""
    ready_made = ENCODERS.get(settings.name, ReadyMade(name=settings.name, about="as timm has it"))
    if settings.pretrained and settings.name in ENCODERS:
        raise ValueError(f"{settings.name} has no pretrained weights; timm has some for {ready_made.name}")
    entry, tag = find(ready_made.name, pretrained=settings.pretrained)
    if "in_chans" in settings.arguments:
        raise ValueError(f"in_chans is {settings.arguments['in_chans']}; give the number of channels as channels")
    arguments = {**ready_made.arguments, **settings.arguments, "num_classes": 0, "in_chans": settings.channels}
    if entry.__module__.rpartition(".")[2] in ("vision_transformer", "vision_transformer_hybrid", "deit"):
        arguments.setdefault("dynamic_img_size", True)
    try:
        model = entry(pretrained=settings.pretrained, pretrained_cfg=tag, **arguments)
    except TIMM_REFUSALS as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{settings.name} cannot be built with {dict(settings.arguments)}: {reason}") from error
    if ready_made.small_stem:
        use_small_stem(model)
    if isinstance(model, VisionTransformer) and not settings.pretrained and model.cls_token is not None:
        nn.init.trunc_normal_(model.cls_token, std=0.02)  # as DINO and Mugs; timm has 1e-6, all else is equal
    return model


def find(name: str, *, pretrained: bool) -> tuple[Callable[..., Any], str | None]:
    """timm's function for a model, and the tag of its weights.

    `timm.create_model` is not used: it drops arguments that are None, so that `ls_init_value=None` would leave a
    ConvNeXt with layer scale.

    Raises:
        ValueError: when timm has no such model or no such weights.
    """
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        known = [*ENCODERS, *timm.list_models()]
        nearest = ", ".join(difflib.get_close_matches(name, known, n=3, cutoff=0.5)) or "none"
        raise ValueError(f"timm knows no model {name!r}; nearest names: {nearest}")
    weights = timm.list_pretrained(f"{architecture}.*")
    if (pretrained and not weights) or (tag and name not in weights):
        raise ValueError(f"timm has no weights {name!r}; it has {', '.join(weights) or 'none of that model'}")
    return timm.models.model_entrypoint(architecture), tag or None
