"""Supervised training with labels: what the papers' tables hold self-supervised methods against."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from polygrain.methods.base import Method
from polygrain.methods.optimization import Optimization
from polygrain.objectives.base import Objective
from polygrain.parts.encoder import Encoder
from polygrain.parts.label_mixing import LabelMixing
from polygrain.ranges import (
    COUNT,
    NOT_NEGATIVE,
    NUMBER,
    PART,
    PIXELS,
    POSITIVE,
    SEVERAL,
    SHARE,
    check_ranges,
    check_scale,
)
from polygrain.schedules import RunLength, Schedule, Time, constant, warmup_cosine
from polygrain.views import Crops, View

AUGMENTATIONS = {"plain": "supervised", "deit": "deit"}


class LabelledMethod(Method):
    """One encoder, one linear layer on its pooled vector, and the labels: the only method that is given them."""

    needs_labels = True

    def __init__(self, encoder: Encoder, crops: Crops, mixing: LabelMixing, smoothing: float) -> None:
        super().__init__(encoder, {}, weights={}, student_sees=(crops,))
        self.mixing = mixing
        self.classifier = nn.Linear(encoder.dim, mixing.classes)
        self.smoothing = smoothing
        self.weights = {"classes": 1.0}

    def add(self, name: str, objective: Objective, weight: float = 1.0) -> None:
        raise ValueError(f"cannot add {name!r}: supervised training sees one view of each image, and its label")

    def forward(
        self, views: Mapping[str, Sequence[View]], time: Time, labels: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Cross-entropy with the labels (B,) of the images."""
        assert labels is not None
        ((view,),) = views.values()
        pixels, shares = self.mixing(view.pixels, labels)  # (B, K)
        seen = self.student(view._replace(pixels=pixels))
        self.seen = (seen.detach(),)
        logits = self.classifier(seen.pooled).float()
        loss = F.cross_entropy(logits, shares.float(), label_smoothing=self.smoothing)
        return {"classes/cross_entropy": loss, "loss": loss}


@dataclass(frozen=True, kw_only=True)
class Supervised:
    """Cross-entropy with labels: a baseline, not a self-supervised method.

    Defaults are those of DeiT (arXiv:2012.12877); the recipe `supervised-resnet50-90ep` holds those of ResNet-50.

    Args:
        classes: how many labels there are; by default as many as the images have.
        large_size: side of the crop, in pixels.
        large_scale: its share of the image area.
        augmentation: "deit" is RandAugment and random erasing, "plain" nothing besides crop and mirror.
        mixup: alpha of mixup; 0 for none.
        cutmix: alpha of CutMix; 0 for none.
        smoothing: share of each label that is spread over all.
        optimizer: AdamW with a cosine (DeiT), or SGD with steps (ResNet).
        base_lr: learning rate per 256 images; by default 2.5e-4 with AdamW, 0.1 with SGD.
        min_lr: at the end, with AdamW.
        warmup_epochs: in which the learning rate rises from 1e-6, with AdamW.
        drop_every_epochs: after which the learning rate falls to a tenth, with SGD.
        weight_decay: by default 0.05 of weights with AdamW, 1e-4 of all parameters with SGD.
    """

    classes: int | None = None
    large_size: int = 224
    large_scale: tuple[float, float] = (0.08, 1.0)
    augmentation: Literal["deit", "plain"] = "deit"
    mixup: float = 0.8
    cutmix: float = 1.0
    smoothing: float = 0.1
    optimizer: Literal["adamw", "sgd"] = "adamw"
    base_lr: float | None = None
    min_lr: float = 1e-5
    warmup_epochs: float = 5
    drop_every_epochs: int = 30
    weight_decay: float | None = None

    def __post_init__(self) -> None:
        kinds = {
            SEVERAL: "classes",
            PIXELS: "large_size",
            COUNT: "drop_every_epochs",
            NUMBER: "warmup_epochs",
            PART: "large_scale",
            SHARE: "smoothing",
            POSITIVE: "base_lr",
            NOT_NEGATIVE: "mixup cutmix min_lr weight_decay",
        }
        check_ranges(self, kinds)
        check_scale("large_scale", self.large_scale)

    def build(self, encoder: Encoder) -> Method:
        """The encoder with a linear layer.

        Raises:
            ValueError: when the number of classes is not known.
        """
        if self.classes is None:
            raise ValueError("supervised training needs the number of classes; give classes")
        crops = Crops(
            name="large",
            count=1,
            size=self.large_size,
            scale=self.large_scale,
            recipes=(AUGMENTATIONS[self.augmentation],),
        )
        mixing = LabelMixing(mixup=self.mixup, cutmix=self.cutmix, classes=self.classes)
        return LabelledMethod(encoder, crops, mixing, self.smoothing)

    def optimization(self, length: RunLength) -> Optimization:
        base_lr, weight_decay = {"adamw": (2.5e-4, 0.05), "sgd": (0.1, 1e-4)}[self.optimizer]
        peak = (base_lr if self.base_lr is None else self.base_lr) * length.batch_size / 256
        curve = warmup_cosine(peak, self.min_lr, self.warmup_epochs, start=1e-6)
        return Optimization(
            optimizer=self.optimizer,
            lr=curve if self.optimizer == "adamw" else tenth_every(peak, self.drop_every_epochs),
            weight_decay=constant(weight_decay if self.weight_decay is None else self.weight_decay),
            decay_all=self.optimizer == "sgd",
        )


def tenth_every(peak: float, epochs: int) -> Schedule:
    return lambda time: peak * 0.1 ** (time.epoch // epochs)
