"""Ready-made encoders: backbones for small images, and ConvNeXt as VICRegL has it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class ReadyMade:
    """A timm model with some arguments filled in.

    Args:
        name: the timm model it is made from.
        image_size: side of the image it is meant for, in pixels.
        arguments: passed to timm.
        small_stem: a ResNet's stem becomes one 3x3 convolution of stride 1 without max-pooling, so that the last
            map has an eighth of the side of the image instead of a thirty-second.
        about: one line for people who choose.
    """

    name: str
    about: str
    image_size: int = 64
    arguments: Mapping[str, Any] = field(default_factory=dict)
    small_stem: bool = False


def _vit(name: str, about: str, **arguments: Any) -> ReadyMade:
    return ReadyMade(name=name, about=about, arguments={"img_size": 64, "patch_size": 8, **arguments})


VICREGL_CONVNEXT = {
    "head_norm_first": True,
    "ls_init_value": None,
}  # norm, then mean; no layer scale (arXiv:2210.01571)

ENCODERS: dict[str, ReadyMade] = {
    "vit_mini_64": _vit(
        "vit_tiny_patch16_224", "ViT, 64 px, patch 8, 192 wide, 6 deep, 3 heads (2.7 M): for CPU cores", depth=6
    ),
    "vit_tiny_64": _vit("vit_tiny_patch16_224", "ViT-Ti, 64 px, patch 8, 192 wide, 12 deep, 3 heads (5.4 M)"),
    "vit_small_64": _vit("vit_small_patch16_224", "ViT-S, 64 px, patch 8, 384 wide, 12 deep, 6 heads (21.4 M)"),
    "resnet18_64": ReadyMade(
        name="resnet18", about="ResNet-18 with a 3x3 stem and no max-pool, stride 8 (11.2 M)", small_stem=True
    ),
    "convnext_femto_64": ReadyMade(
        name="convnext_femto",
        about="ConvNeXt, stem of patch 2, stride 8, norm before mean, 384 wide, 12 blocks (4.8 M)",
        # stages at strides 4, 8, 8, 8: the last two are dilated by 2 and 4, with kernels that fit an 8x8 map
        arguments={"patch_size": 2, "output_stride": 8, "kernel_sizes": (7, 7, 5, 3), **VICREGL_CONVNEXT},
    ),
    **{
        f"convnext_{size}_vicregl": ReadyMade(
            name=f"convnext_{size}",
            about=f"ConvNeXt-{letter} as VICRegL has it: norm before mean, no layer scale",
            image_size=224,
            arguments=VICREGL_CONVNEXT,
        )
        for size, letter in (("tiny", "T"), ("small", "S"), ("base", "B"), ("xlarge", "XL"))
    },
}
