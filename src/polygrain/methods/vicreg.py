"""VICReg: variance-invariance-covariance regularization (arXiv:2105.04906)."""

from dataclasses import dataclass
from typing import Literal

from polygrain.methods.base import Method
from polygrain.methods.optimization import Optimization
from polygrain.objectives.vicreg import Convention, Global
from polygrain.parts.encoder import Encoder
from polygrain.ranges import COUNT, NOT_NEGATIVE, NUMBER, PART, PIXELS, POSITIVE, SHARE, check_ranges, check_scale
from polygrain.schedules import RunLength, constant, warmup_cosine_by_images
from polygrain.views import Crops


@dataclass(frozen=True, kw_only=True)
class VICReg:
    """One network, two views: alike, varied over images, decorrelated. No teacher, no predictor, no negatives.

    Defaults are those of ResNet-50 for 100 epochs at batch 512 (official code, 4e12602).

    Args:
        large_size: side of both crops, in pixels.
        large_scale: their share of the image area.
        blur_scale: factor on the sigma of blurs, which the recipes give for crops of 224 pixels.
        expander_width: of the hidden and output layers of the expander.
        invariance: coefficient of the mean squared difference.
        variance: coefficient of the hinge on the standard deviation.
        covariance: coefficient of the squared covariances.
        covariance_of: "vicreg" adds the covariance terms of both views up, "vicregl" averages them.
        optimizer: LARS as in the paper, or AdamW.
        base_lr: learning rate per 256 images; by default 0.3 with LARS (0.2 for 1000 epochs), 5e-4 with AdamW.
        end_lr_ratio: share of the highest learning rate that is left at the end.
        warmup_epochs: in which the learning rate rises from 0.
        weight_decay: of weights, not of biases and norms; by default 1e-6 with LARS, 0.05 with AdamW.
    """

    large_size: int = 224
    large_scale: tuple[float, float] = (0.08, 1.0)
    blur_scale: float = 1.0
    expander_width: int = 8192
    invariance: float = 25.0
    variance: float = 25.0
    covariance: float = 1.0
    covariance_of: Convention = "vicreg"
    optimizer: Literal["lars", "adamw"] = "lars"
    base_lr: float | None = None
    end_lr_ratio: float = 1e-3
    warmup_epochs: float = 10
    weight_decay: float | None = None

    def __post_init__(self) -> None:
        kinds = {
            PIXELS: "large_size",
            COUNT: "expander_width",
            NUMBER: "warmup_epochs",
            PART: "large_scale",
            SHARE: "end_lr_ratio",
            POSITIVE: "base_lr",
            NOT_NEGATIVE: "blur_scale invariance variance covariance weight_decay",
        }
        check_ranges(self, kinds)
        check_scale("large_scale", self.large_scale)

    def build(self, encoder: Encoder) -> Method:
        crops = Crops(
            name="large",
            count=2,
            size=self.large_size,
            scale=self.large_scale,
            recipes=("byol_a", "byol_b"),
            blur_scale=self.blur_scale,
        )
        objective = Global(
            (encoder.dim, self.expander_width, self.expander_width, self.expander_width),
            norm="batch" if encoder.has_batch_norm else "layer",
            covariance_of=self.covariance_of,
            invariance=self.invariance,
            variance=self.variance,
            covariance=self.covariance,
        )
        return Method(
            encoder,
            {"global": objective},
            weights={"global": 1.0},
            student_sees=(crops,),
            apart=encoder.has_batch_norm,  # the authors run one view at a time, which batch norm can tell
        )

    def optimization(self, length: RunLength) -> Optimization:
        base_lr, weight_decay = {"lars": (0.3, 1e-6), "adamw": (5e-4, 0.05)}[self.optimizer]
        base_lr = base_lr if self.base_lr is None else self.base_lr
        peak = base_lr * length.batch_size / 256
        return Optimization(
            optimizer=self.optimizer,
            lr=warmup_cosine_by_images(peak, peak * self.end_lr_ratio, self.warmup_epochs, length),
            weight_decay=constant(weight_decay if self.weight_decay is None else self.weight_decay),
        )
