"""How the papers train linear classifiers on frozen features."""

from dataclasses import dataclass, replace
from typing import Literal

from polygrain.evaluate.settings.base import Readout

SWEEP = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


@dataclass(frozen=True, kw_only=True)
class HeadRecipe:
    """One way to train linear classifiers.

    Args:
        learning_rates: per 256 images; all are trained together.
        readouts: likewise; empty for the one that the settings name.
        augmentation: "none": features of the plain views, computed once. "crop": of a random resized crop, mirrored at
            even odds, anew in every epoch. "strong": with RandAugment and random erasing, as Mugs.
        min_lr: at the end of the cosine, whatever the batch.
        least_steps: a small set gets more epochs, so that its classifiers take so many steps, unless epochs are given.
        by_step: the learning rate changes with every step, not every epoch.
        batch_norm: without gain or offset, before the classifier.
    """

    learning_rates: tuple[float, ...]
    readouts: tuple[Readout, ...] = ()
    augmentation: Literal["none", "crop", "strong"] = "crop"
    epochs: int = 100
    head_batch_size: int = 1024
    min_lr: float = 0.0
    warmup_epochs: int = 0
    least_steps: int = 0
    by_step: bool = False
    weight_decay: float = 0.0
    optimizer: Literal["sgd", "lars"] = "sgd"
    batch_norm: bool = False


_SWEEP = HeadRecipe(learning_rates=SWEEP, augmentation="none", head_batch_size=256, least_steps=2000)
_MUGS = HeadRecipe(learning_rates=(0.015,), readouts=("cls4",), augmentation="strong")
_VICREG = HeadRecipe(learning_rates=(0.02,), head_batch_size=256, weight_decay=1e-6)
_DINO = HeadRecipe(learning_rates=(0.001,))

PRESETS: dict[str, HeadRecipe] = {
    "sweep": _SWEEP,
    "sweep_bn": replace(_SWEEP, batch_norm=True),
    # DINO, arXiv:2104.14294, `eval_linear.py`: its head for ViT-S, for ViT-B, for ResNet-50
    "dino_s": replace(_DINO, readouts=("cls4",)),
    "dino_b": replace(_DINO, readouts=("cls1+mean",)),
    "dino_resnet": _DINO,
    # DINOv2, arXiv:2304.07193, `eval/linear.py`: 13 learning rates x 4 readouts
    "dinov2": HeadRecipe(
        learning_rates=(1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1),
        readouts=("cls1", "cls4", "cls1+mean", "cls4+mean"),
        epochs=10,
        by_step=True,
    ),
    # Mugs, arXiv:2203.14415, `eval_linear.py` and its README, by the size and length of pretraining
    "mugs_s_100ep": replace(_MUGS, min_lr=1e-5),
    "mugs_s_300ep": replace(_MUGS, learning_rates=(0.02,)),
    "mugs_s_800ep": replace(_MUGS, learning_rates=(0.01,)),
    "mugs_b": replace(_MUGS, learning_rates=(0.002,), readouts=("cls1+mean",), min_lr=1e-5, head_batch_size=512),
    "mugs_l": replace(
        _MUGS,
        learning_rates=tuple(digit * 10.0**power for power in range(-4, 0) for digit in range(1, 10)),
        readouts=("cls1+mean",),
        min_lr=1e-5,
    ),
    # VICReg, arXiv:2105.04906, and VICRegL, arXiv:2210.01571, `evaluate.py`
    "vicreg": _VICREG,
    "vicregl_convnext": replace(_VICREG, learning_rates=(0.3,)),
    # MAE, arXiv:2111.06377, `main_linprobe.py`
    "mae": HeadRecipe(
        learning_rates=(0.1,),
        epochs=90,
        head_batch_size=16384,
        warmup_epochs=10,
        by_step=True,
        optimizer="lars",
        batch_norm=True,
    ),
}
