"""How the parameters of a method move."""

from dataclasses import dataclass
from typing import Literal

from polygrain.schedules import Schedule


@dataclass(frozen=True, kw_only=True)
class Optimization:
    """How a method's parameters move: what the loop needs to know of a paper's recipe.

    Args:
        lr: learning rate per step, batch scaling included.
        weight_decay: per step; parameters with one dimension, and those named `.bias`, decay only with `decay_all`.
        decay_all: decay every parameter (MoCo, SimSiam, SwAV).
        betas: of AdamW.
        patch_embed_lr: multiplier for the patch embedding of a ViT (Mugs: 0.2).
        one_dimension_lr: multiplier for biases and the parameters of norms (Barlow Twins).
        constant_lr: a learning rate that stays, for parameters whose name contains `constant_lr_of` (SimSiam's
            predictor).
        clip: largest norm of a gradient by epoch; None to leave gradients alone.
        clip_each: clip each tensor by its own norm (DINO, Mugs), instead of all by their joint norm.
    """

    optimizer: Literal["adamw", "lars", "larc", "sgd"]
    lr: Schedule
    weight_decay: Schedule
    decay_all: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    patch_embed_lr: float = 1.0
    one_dimension_lr: float = 1.0
    constant_lr: float | None = None
    constant_lr_of: str = ""
    clip: Schedule | None = None
    clip_each: bool = False
