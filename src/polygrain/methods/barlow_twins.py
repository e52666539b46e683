"""Barlow Twins: self-supervised learning via redundancy reduction (arXiv:2103.03230)."""

from dataclasses import dataclass
from typing import Literal

from polygrain.methods.base import Method
from polygrain.methods.optimization import Optimization
from polygrain.objectives.redundancy import RedundancyReduction
from polygrain.parts.encoder import Encoder
from polygrain.ranges import COUNT, NOT_NEGATIVE, NUMBER, PART, PIXELS, POSITIVE, SHARE, check_ranges, check_scale
from polygrain.schedules import RunLength, constant, warmup_cosine_by_images
from polygrain.views import Crops


@dataclass(frozen=True, kw_only=True)
class BarlowTwins:
    """One network, two views: each dimension of their embeddings agrees, and no two dimensions correlate.

    Defaults are those of ResNet-50 (official code, 8e8d284).

    Args:
        large_size: side of both crops, in pixels.
        large_scale: their share of the image area.
        blur_scale: factor on the sigma of blurs, which the recipes give for crops of 224 pixels.
        expander_width: of the hidden and output layers of the projector.
        off_diagonal: weight of the squared correlations between dimensions.
        optimizer: LARS as in the paper, or AdamW.
        base_lr: learning rate per 256 images; by default 0.2 with LARS, 5e-4 with AdamW.
        bias_lr: the same for biases and the parameters of norms, which LARS does not scale; None for `base_lr`. The
            authors' 0.0048 is for their code's gradient, which is the true one over the number of devices.
        end_lr_ratio: share of the highest learning rate that is left at the end.
        warmup_epochs: in which the learning rate rises from 0.
        weight_decay: of weights, not of biases and norms; by default 1e-6 with LARS, 0.05 with AdamW.
    """

    large_size: int = 224
    large_scale: tuple[float, float] = (0.08, 1.0)
    blur_scale: float = 1.0
    expander_width: int = 8192
    off_diagonal: float = 0.0051
    optimizer: Literal["lars", "adamw"] = "lars"
    base_lr: float | None = None
    bias_lr: float | None = 0.0048
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
            POSITIVE: "base_lr bias_lr",
            NOT_NEGATIVE: "blur_scale off_diagonal weight_decay",
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
        widths = (encoder.dim, self.expander_width, self.expander_width, self.expander_width)
        return Method(
            encoder,
            {"global": RedundancyReduction(widths, off_diagonal=self.off_diagonal)},
            weights={"global": 1.0},
            student_sees=(crops,),
            apart=encoder.has_batch_norm,  # the authors run one view at a time, which batch norm can tell
        )

    def optimization(self, length: RunLength) -> Optimization:
        base_lr, weight_decay = {"lars": (0.2, 1e-6), "adamw": (5e-4, 0.05)}[self.optimizer]
        base_lr = base_lr if self.base_lr is None else self.base_lr
        peak = base_lr * length.batch_size / 256
        scaled = self.optimizer == "lars" and self.bias_lr is not None
        whole = length._replace(images=length.steps_per_epoch * length.batch_size)  # counted in steps of an epoch
        return Optimization(
            optimizer=self.optimizer,
            lr=warmup_cosine_by_images(peak, peak * self.end_lr_ratio, self.warmup_epochs, whole),
            weight_decay=constant(weight_decay if self.weight_decay is None else self.weight_decay),
            one_dimension_lr=self.bias_lr / base_lr if scaled and self.bias_lr is not None else 1.0,
        )
