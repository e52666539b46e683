"""SimSiam: exploring simple Siamese representation learning (arXiv:2011.10566)."""

from dataclasses import dataclass
from typing import Literal

from polygrain.methods.base import Method
from polygrain.methods.optimization import Optimization
from polygrain.objectives.predict import Siamese
from polygrain.parts.encoder import Encoder
from polygrain.ranges import COUNT, NOT_NEGATIVE, PART, PIXELS, POSITIVE, check_ranges, check_scale
from polygrain.schedules import RunLength, constant, cosine_by_epoch
from polygrain.views import Crops


@dataclass(frozen=True, kw_only=True)
class SimSiam:
    """One network predicts its own vector of the other view, which gets no gradient: no teacher, no negatives.

    Defaults are those of ResNet-50 for 100 epochs (official code, a7bc177).

    Args:
        large_size: side of both crops, in pixels.
        large_scale: their share of the image area.
        blur_scale: factor on the sigma of blurs, which the recipes give for crops of 224 pixels.
        hidden: width of all layers of the projector, and of what is predicted.
        bottleneck: width of the predictor's hidden layer; by default a quarter of `hidden`.
        constant_predictor_lr: the predictor keeps the highest learning rate.
        optimizer: SGD with momentum 0.9 as in the paper, or AdamW.
        base_lr: learning rate per 256 images; by default 0.05 with SGD, 5e-4 with AdamW. It falls along a cosine,
            epoch by epoch.
        weight_decay: by default 1e-4 of all parameters with SGD, 0.05 of weights alone with AdamW.
    """

    large_size: int = 224
    large_scale: tuple[float, float] = (0.2, 1.0)
    blur_scale: float = 1.0
    hidden: int = 2048
    bottleneck: int | None = None
    constant_predictor_lr: bool = True
    optimizer: Literal["sgd", "adamw"] = "sgd"
    base_lr: float | None = None
    weight_decay: float | None = None

    def __post_init__(self) -> None:
        kinds = {
            PIXELS: "large_size",
            COUNT: "hidden bottleneck",
            PART: "large_scale",
            POSITIVE: "base_lr",
            NOT_NEGATIVE: "blur_scale weight_decay",
        }
        check_ranges(self, kinds)
        check_scale("large_scale", self.large_scale)

    def build(self, encoder: Encoder) -> Method:
        crops = Crops(
            name="large",
            count=2,
            size=self.large_size,
            scale=self.large_scale,
            recipes=("moco2",),
            blur_scale=self.blur_scale,
        )
        bottleneck = max(1, self.hidden // 4) if self.bottleneck is None else self.bottleneck
        return Method(
            encoder,
            {"instance": Siamese(encoder.dim, hidden=self.hidden, bottleneck=bottleneck)},
            weights={"instance": 1.0},
            student_sees=(crops,),
            apart=encoder.has_batch_norm,  # the authors run one view at a time, which batch norm can tell
        )

    def optimization(self, length: RunLength) -> Optimization:
        base_lr, weight_decay = {"sgd": (0.05, 1e-4), "adamw": (5e-4, 0.05)}[self.optimizer]
        peak = (base_lr if self.base_lr is None else self.base_lr) * length.batch_size / 256
        return Optimization(
            optimizer=self.optimizer,
            lr=cosine_by_epoch(peak),
            weight_decay=constant(weight_decay if self.weight_decay is None else self.weight_decay),
            decay_all=self.optimizer == "sgd",
            constant_lr=peak if self.constant_predictor_lr else None,
            constant_lr_of=".predictor.",
        )
