"""How the papers train segmentation, and short runs of ours. Imports nothing heavy."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

ONLY_STREAMED = ("dropout", "crop", "warmup_steps")


@dataclass(frozen=True, kw_only=True)
class LinearRecipe:
    """All that training a linear head takes.

    Args:
        streamed: on random crops, every pixel judged; else on features of whole images that are computed once, every
            patch judged by the shares of the classes in it.
        power: of the polynomial that the learning rate follows to `least_rate`; not streamed it is a cosine to 0.
        size: None for 32 cells of the backbone's map, at most 512.
        window: side of the sliding window at test; 0 for whole images. `stride`: from window to window.
    """

    streamed: bool
    levels: int
    output_stride: int | None
    batch_norm: bool
    dropout: float
    optimizer: Literal["adamw", "sgd"]
    learning_rates: tuple[float, ...]
    weight_decay: float
    power: float
    least_rate: float
    warmup_steps: int
    steps: int
    images_per_step: int
    size: int | None
    crop: int
    window: int
    stride: int

    def told(self) -> dict[str, Any]:
        """All that decides the numbers."""
        unused = set() if self.streamed else {"power", "least_rate", *ONLY_STREAMED}
        unused |= set() if self.window else {"stride"}
        return {name: value for name, value in dataclasses.asdict(self).items() if name not in unused}


_VICREGL = LinearRecipe(
    streamed=True,
    levels=4,
    output_stride=None,
    batch_norm=True,
    dropout=0.0,
    optimizer="adamw",
    learning_rates=(1e-4,),
    weight_decay=0.05,
    power=1.0,
    least_rate=0.0,
    warmup_steps=1500,
    steps=40_000,
    images_per_step=16,
    size=512,
    crop=512,
    window=512,
    stride=341,
)
# VICRegL, arXiv:2210.01571, official `segmentation/`: ConvNeXt on Pascal VOC (with SBD) and ADE20K, dilated ResNet-50
# on Pascal VOC. iBOT, arXiv:2111.07832, linear head on ADE20K, there on blocks 4, 6, 8 and 12 of 12 instead of the last
# four. DINOv3, arXiv:2508.10104, `eval/segmentation`: its rates, steps and warm-up; there the rate falls by a one-cycle
# schedule and gradients are clipped to a norm of 35, here it falls in a line and they are not.
LINEAR_PRESETS: dict[str, LinearRecipe] = {
    "quick": dataclasses.replace(
        _VICREGL,
        streamed=False,
        levels=1,
        learning_rates=(1e-3, 3e-3, 1e-2, 3e-2),
        weight_decay=1e-3,
        warmup_steps=0,
        steps=500,
        size=None,
        window=0,
    ),
    "vicregl_convnext_voc": _VICREGL,
    "vicregl_convnext_ade": dataclasses.replace(_VICREGL, steps=160_000),
    "vicregl_resnet": dataclasses.replace(
        _VICREGL,
        levels=1,
        output_stride=8,
        dropout=0.1,
        optimizer="sgd",
        learning_rates=(0.01,),
        weight_decay=5e-4,
        power=0.9,
        least_rate=1e-4,
        warmup_steps=0,
        window=0,
    ),
    "ibot": dataclasses.replace(_VICREGL, batch_norm=False, learning_rates=(8e-4,), steps=160_000),
    "dinov3": dataclasses.replace(_VICREGL, levels=1, dropout=0.1, learning_rates=(1e-3,), weight_decay=1e-3),
}


@dataclass(frozen=True, kw_only=True)
class FinetuneRecipe:
    """All that fine-tuning with UPerNet takes; `channels` are those of its decoder, for the rest see `LinearRecipe`."""

    channels: int
    learning_rate: float
    layer_decay: float
    weight_decay: float
    drop_path: float
    dropout: float
    warmup_steps: int
    steps: int
    images_per_step: int
    size: int | None
    crop: int | None
    window: int
    stride: int


# Mugs, arXiv:2203.14415, and iBOT, arXiv:2111.07832, official `evaluation/semantic_segmentation`, ViT-S on ADE20K,
# there in half precision. iBOT's ViT-B: `configs/upernet/vit_base_512_ade20k_160k.py` at the learning rate of
# `evaluation/README.md` (github.com/bytedance/ibot, commit 092f7a4).
_MUGS = FinetuneRecipe(
    channels=384,
    learning_rate=3e-5,
    layer_decay=0.9,
    weight_decay=0.05,
    drop_path=0.1,
    dropout=0.1,
    warmup_steps=1500,
    steps=160_000,
    images_per_step=16,
    size=512,
    crop=512,
    window=512,
    stride=341,
)
FINETUNE_PRESETS: dict[str, FinetuneRecipe] = {
    "quick": dataclasses.replace(
        _MUGS, channels=128, learning_rate=5e-4, steps=500, images_per_step=8, size=None, crop=None, window=0
    ),
    "mugs": _MUGS,
    "ibot_base": dataclasses.replace(_MUGS, channels=768, learning_rate=8e-5, layer_decay=0.65),
}
