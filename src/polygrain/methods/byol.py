"""BYOL: bootstrap your own latent (arXiv:2006.07733)."""

from dataclasses import dataclass
from typing import Literal

from polygrain.methods.base import Method
from polygrain.methods.optimization import Optimization
from polygrain.objectives.predict import Bootstrap
from polygrain.parts.encoder import Encoder
from polygrain.parts.teacher import StudentTeacher
from polygrain.ranges import COUNT, NOT_NEGATIVE, NUMBER, PART, PIXELS, POSITIVE, SHARE, check_ranges, check_scale
from polygrain.schedules import RunLength, constant, cosine, warmup_cosine_by_images
from polygrain.views import Crops


@dataclass(frozen=True, kw_only=True)
class BYOL:
    """The student predicts the teacher's vector of the other view; the teacher is the average of its weights.

    Defaults are those of ResNet-50 for 100 epochs at batch 4096 (deepmind-research d8df415).

    Args:
        large_size: side of both crops, in pixels.
        large_scale: their share of the image area.
        blur_scale: factor on the sigma of blurs, which the recipes give for crops of 224 pixels.
        hidden: width of the projector's hidden layer.
        predictor_hidden: width of the predictor's.
        out: width of what is predicted.
        momentum: of the teacher at the start; rises to 1 along a cosine.
        optimizer: LARS as in the paper, or AdamW.
        base_lr: learning rate per 256 images; by default 0.45 with LARS, 5e-4 with AdamW.
        warmup_epochs: in which the learning rate rises from 0.
        weight_decay: of weights, not of biases and norms; by default 1e-6 with LARS, 0.05 with AdamW.
    """

    large_size: int = 224
    large_scale: tuple[float, float] = (0.08, 1.0)
    blur_scale: float = 1.0
    hidden: int = 4096
    predictor_hidden: int = 4096
    out: int = 256
    momentum: float = 0.99
    optimizer: Literal["lars", "adamw"] = "lars"
    base_lr: float | None = None
    warmup_epochs: float = 10
    weight_decay: float | None = None

    def __post_init__(self) -> None:
        kinds = {
            PIXELS: "large_size",
            COUNT: "hidden predictor_hidden out",
            NUMBER: "warmup_epochs",
            PART: "large_scale",
            SHARE: "momentum",
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
            recipes=("byol_a", "byol_b"),
            blur_scale=self.blur_scale,
        )
        objective = Bootstrap(encoder.dim, hidden=self.hidden, predictor_hidden=self.predictor_hidden, out=self.out)
        return Method(
            StudentTeacher(encoder),
            {"instance": objective},
            weights={"instance": 1.0},
            student_sees=(crops,),
            teacher_sees=(crops,),
            momentum=cosine(self.momentum, 1.0),
            exports_teacher=False,
            apart=encoder.has_batch_norm,  # the authors run one view at a time, which batch norm can tell
        )

    def optimization(self, length: RunLength) -> Optimization:
        base_lr, weight_decay = {"lars": (0.45, 1e-6), "adamw": (5e-4, 0.05)}[self.optimizer]
        peak = (base_lr if self.base_lr is None else self.base_lr) * length.batch_size / 256
        return Optimization(
            optimizer=self.optimizer,
            lr=warmup_cosine_by_images(peak, 0.0, self.warmup_epochs, length),
            weight_decay=constant(weight_decay if self.weight_decay is None else self.weight_decay),
        )
