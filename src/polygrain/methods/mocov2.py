"""MoCo v2: improved baselines with momentum contrastive learning (arXiv:2003.04297)."""

from dataclasses import dataclass, replace
from typing import Literal

from polygrain.methods.base import Method
from polygrain.methods.optimization import Optimization
from polygrain.objectives.queued import QueuedContrast
from polygrain.parts.encoder import Encoder
from polygrain.parts.heads import mlp
from polygrain.parts.shuffle import shuffle_between_ranks
from polygrain.parts.teacher import StudentTeacher
from polygrain.ranges import COUNT, NOT_NEGATIVE, PART, PIXELS, POSITIVE, SHARE, check_ranges, check_scale
from polygrain.schedules import RunLength, constant, cosine_by_epoch
from polygrain.views import Crops


@dataclass(frozen=True, kw_only=True)
class MoCoV2:
    """A query of one view finds the teacher's key of the other view among keys of earlier batches.

    Defaults are those of ResNet-50 (official code, 5670021).

    Args:
        large_size: side of both crops, in pixels.
        large_scale: their share of the image area.
        blur_scale: factor on the sigma of blurs, which the recipes give for crops of 224 pixels.
        hidden: width of the projector's hidden layer.
        out: width of queries and keys.
        queue_size: number of negatives.
        temperature: of the softmax.
        symmetric: both views are queries and keys, at twice the cost, instead of one query and one key. Then the
            student sees two views, so that objectives which need two can be added.
        momentum: of the teacher, which is constant.
        batch_norm: over several devices, "synced" takes statistics over the batch of all; "shuffled" leaves them to
            each device and gives the teacher's a random share of all images, as the authors do.
        optimizer: SGD as in the paper, or AdamW.
        base_lr: learning rate per 256 images; by default 0.03 with SGD, 5e-4 with AdamW. It falls along a cosine,
            epoch by epoch, without warm-up.
        weight_decay: of all parameters with SGD; by default 1e-4. With AdamW of weights, 0.05.
    """

    large_size: int = 224
    large_scale: tuple[float, float] = (0.2, 1.0)
    blur_scale: float = 1.0
    hidden: int = 2048
    out: int = 128
    queue_size: int = 65536
    temperature: float = 0.2
    symmetric: bool = False
    momentum: float = 0.999
    batch_norm: Literal["synced", "shuffled"] = "synced"
    optimizer: Literal["sgd", "adamw"] = "sgd"
    base_lr: float | None = None
    weight_decay: float | None = None

    def __post_init__(self) -> None:
        kinds = {
            PIXELS: "large_size",
            COUNT: "hidden out queue_size",
            PART: "large_scale",
            SHARE: "momentum",
            POSITIVE: "temperature base_lr",
            NOT_NEGATIVE: "blur_scale weight_decay",
        }
        check_ranges(self, kinds)
        check_scale("large_scale", self.large_scale)

    def build(self, encoder: Encoder) -> Method:
        """Student and teacher, which moves before it encodes."""
        query = Crops(
            name="query",
            count=1,
            size=self.large_size,
            scale=self.large_scale,
            recipes=("moco2",),
            blur_scale=self.blur_scale,
        )
        both = replace(query, name="large", count=2)
        pair = StudentTeacher(encoder)
        if self.batch_norm == "shuffled":
            shuffle_between_ranks(pair)
        objective = QueuedContrast(
            mlp((encoder.dim, self.hidden, self.out), activation="relu"),
            self.out,
            queue_size=self.queue_size,
            temperature=self.temperature,
            same_crops=self.symmetric,
        )
        return Method(
            pair,
            {"instance": objective},
            weights={"instance": 1.0},
            student_sees=(both if self.symmetric else query,),
            teacher_sees=(both if self.symmetric else replace(query, name="key"),),
            momentum=constant(self.momentum),
            exports_teacher=False,
            apart=encoder.has_batch_norm,
            teacher_first=True,
        )

    def optimization(self, length: RunLength) -> Optimization:
        base_lr, weight_decay = {"sgd": (0.03, 1e-4), "adamw": (5e-4, 0.05)}[self.optimizer]
        base_lr = base_lr if self.base_lr is None else self.base_lr
        return Optimization(
            optimizer=self.optimizer,
            lr=cosine_by_epoch(base_lr * length.batch_size / 256),
            weight_decay=constant(weight_decay if self.weight_decay is None else self.weight_decay),
            decay_all=self.optimizer == "sgd",
        )
