"""SimCLR: a simple framework for contrastive learning of visual representations (arXiv:2002.05709)."""

import math
from dataclasses import dataclass
from typing import Literal

from polygrain.methods.base import Method
from polygrain.methods.optimization import Optimization
from polygrain.objectives.in_batch import NTXent
from polygrain.parts.encoder import Encoder
from polygrain.parts.heads import mlp, normal_init
from polygrain.ranges import COUNT, NOT_NEGATIVE, NUMBER, PART, PIXELS, POSITIVE, check_ranges, check_scale
from polygrain.schedules import RunLength, constant, warmup_cosine_by_images
from polygrain.views import Crops


@dataclass(frozen=True, kw_only=True)
class SimCLR:
    """One network, two views of each image that find each other among all views of the batch.

    Defaults are those of the released code for ResNet-50 (383d414), but for the scale of the loss, see `compat`.

    Args:
        large_size: side of both crops, in pixels.
        large_scale: their share of the image area.
        blur_scale: factor on the sigma of blurs, which the recipes give for crops of 224 pixels.
        hidden: width of the projector's hidden layers.
        out: width of the embeddings.
        layers: of the projector; the released code has 3, the paper 2.
        temperature: of the softmax.
        optimizer: LARS as in the paper, or AdamW.
        base_lr: learning rate per 256 images, or per square root of an image; by default 0.3 or 0.075 with LARS,
            5e-4 or 1.25e-4 with AdamW. The two ways to scale agree at 4,096 images with LARS.
        lr_scaling: with the batch size, "linear" or by its square root ("sqrt", better for small batches: app. B.1).
        warmup_epochs: in which the learning rate rises from 0.
        weight_decay: of weights, not of biases and norms; by default 1e-6 with LARS, 0.05 with AdamW.
        compat: "official" adds the losses of the two views up, as the released code does, instead of averaging over
            all anchors as the paper does; it doubles the steps of biases and norms under LARS.
    """

    large_size: int = 224
    large_scale: tuple[float, float] = (0.08, 1.0)
    blur_scale: float = 1.0
    hidden: int = 2048
    out: int = 128
    layers: int = 3
    temperature: float = 0.1
    optimizer: Literal["lars", "adamw"] = "lars"
    base_lr: float | None = None
    lr_scaling: Literal["linear", "sqrt"] = "linear"
    warmup_epochs: float = 10
    weight_decay: float | None = None
    compat: Literal["paper", "official"] = "paper"

    def __post_init__(self) -> None:
        kinds = {
            PIXELS: "large_size",
            COUNT: "hidden out layers",
            NUMBER: "warmup_epochs",
            PART: "large_scale",
            POSITIVE: "temperature base_lr",
            NOT_NEGATIVE: "blur_scale weight_decay",
        }
        check_ranges(self, kinds)
        check_scale("large_scale", self.large_scale)

    def build(self, encoder: Encoder) -> Method:
        """One network, one term; both views share one pass and its batch norm statistics."""
        crops = Crops(
            name="large",
            count=2,
            size=self.large_size,
            scale=self.large_scale,
            recipes=("simclr",),
            blur_scale=self.blur_scale,
        )
        widths = (encoder.dim, *[self.hidden] * (self.layers - 1), self.out)
        projector = mlp(widths, activation="relu", norm="batch", bias=False, last_bias=False, last_norm="gain")
        normal_init(projector, 0.01)
        return Method(
            encoder,
            {"instance": NTXent(projector, temperature=self.temperature)},
            weights={"instance": 2.0 if self.compat == "official" else 1.0},
            student_sees=(crops,),
        )

    def optimization(self, length: RunLength) -> Optimization:
        base_lr, weight_decay = {"lars": (0.3, 1e-6), "adamw": (5e-4, 0.05)}[self.optimizer]
        if self.lr_scaling == "linear":
            peak = (base_lr if self.base_lr is None else self.base_lr) * length.batch_size / 256
        else:
            peak = (base_lr / 4 if self.base_lr is None else self.base_lr) * math.sqrt(length.batch_size)
        return Optimization(
            optimizer=self.optimizer,
            lr=warmup_cosine_by_images(peak, 0.0, self.warmup_epochs, length),
            weight_decay=constant(weight_decay if self.weight_decay is None else self.weight_decay),
        )
