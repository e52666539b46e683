"""InfoMin Aug: what makes for good views for contrastive learning? (arXiv:2005.10243)"""

import math
from dataclasses import dataclass, replace
from typing import Literal

from polygrain.methods.base import Method
from polygrain.methods.optimization import Optimization
from polygrain.objectives.base import Objective
from polygrain.objectives.jigsaw import PIECES, JigsawContrast
from polygrain.objectives.queued import QueuedContrast
from polygrain.parts.encoder import Encoder
from polygrain.parts.heads import mlp
from polygrain.parts.shuffle import shuffle_between_ranks
from polygrain.parts.teacher import StudentTeacher
from polygrain.ranges import COUNT, NOT_NEGATIVE, NUMBER, PART, PIXELS, POSITIVE, SHARE, check_ranges, check_scale
from polygrain.schedules import RunLength, Schedule, Time, constant
from polygrain.views import Crops

LEAST_RATE = 1e-3  # of the learning rate, at the end of the cosine


@dataclass(frozen=True, kw_only=True)
class InfoMin:
    """MoCo v2 with stronger colours, RandAugment of finished crops, and a second query made of nine puzzle pieces.

    Defaults are those of ResNet-50 (official code, PyContrast 84f94ea).

    Args:
        large_size: side of query and key, in pixels.
        large_scale: their share of the image area.
        small_size: side of the pieces.
        whole_scale: share of the image area that the nine pieces are cut from.
        blur_scale: factor on the sigma of blurs, which the recipes give for crops of 224 pixels.
        hidden: width of the projectors' hidden layers.
        out: width of queries and keys.
        queue_size: number of negatives, the same for both queries.
        temperature: of the softmax.
        jigsaw: share of the puzzles in the loss; 0 leaves them out.
        momentum: of the teacher, which is constant.
        batch_norm: over several devices, "synced" takes statistics over the batch of all; "shuffled" leaves them to
            each device and gives the teacher's a random share of all images, as the authors do.
        optimizer: SGD as in the paper, or AdamW.
        base_lr: learning rate per 256 images; by default 0.03 with SGD, 5e-4 with AdamW. It falls along a cosine,
            epoch by epoch, to a thousandth.
        warmup_epochs: in which the learning rate rises from a sixth; by default none up to 256 images a step, else 5,
            or 10 in a run of more than 500 epochs.
        weight_decay: of all parameters with SGD; by default 1e-4. With AdamW of weights, 0.05.
    """

    large_size: int = 224
    large_scale: tuple[float, float] = (0.2, 1.0)
    small_size: int = 64
    whole_scale: tuple[float, float] = (0.6, 1.0)
    blur_scale: float = 1.0
    hidden: int = 2048
    out: int = 128
    queue_size: int = 65536
    temperature: float = 0.15
    jigsaw: float = 0.5
    momentum: float = 0.999
    batch_norm: Literal["synced", "shuffled"] = "synced"
    optimizer: Literal["sgd", "adamw"] = "sgd"
    base_lr: float | None = None
    warmup_epochs: int | None = None
    weight_decay: float | None = None

    def __post_init__(self) -> None:
        kinds = {
            PIXELS: "large_size small_size",
            COUNT: "hidden out queue_size",
            NUMBER: "warmup_epochs",
            PART: "large_scale whole_scale",
            SHARE: "momentum jigsaw",
            POSITIVE: "temperature base_lr",
            NOT_NEGATIVE: "blur_scale weight_decay",
        }
        check_ranges(self, kinds)
        check_scale("large_scale", self.large_scale)
        check_scale("whole_scale", self.whole_scale)
        if self.jigsaw == 1:
            raise ValueError("jigsaw is 1; it must be below 1, since the keys of puzzles are learnt from whole images")

    def build(self, encoder: Encoder) -> Method:
        """Query and pieces for the student, a key for the teacher, which moves after the optimizer's step."""
        query = Crops(
            name="query",
            count=1,
            size=self.large_size,
            scale=self.large_scale,
            recipes=("infomin",),
            blur_scale=self.blur_scale,
        )
        pieces = Crops(
            name="pieces",
            count=PIECES,
            size=self.small_size,
            scale=self.whole_scale,
            recipes=("mae",),  # no colours
            jigsaw=True,
        )
        pair = StudentTeacher(encoder)
        if self.batch_norm == "shuffled":
            shuffle_between_ranks(pair)
        instance = QueuedContrast(
            mlp((encoder.dim, self.hidden, self.out), activation="relu"),
            self.out,
            queue_size=self.queue_size,
            temperature=self.temperature,
            queries=1,
        )
        objectives: dict[str, Objective] = {"instance": instance}
        if self.jigsaw:
            puzzles = JigsawContrast(encoder.dim, hidden=self.hidden, out=self.out, partner=instance)
            objectives = {"jigsaw": puzzles, "instance": instance}  # whose keys enter the queue last
        return Method(
            pair,
            objectives,
            weights={"jigsaw": self.jigsaw, "instance": 1 - self.jigsaw},
            student_sees=(query, pieces) if self.jigsaw else (query,),
            teacher_sees=(replace(query, name="key"),),
            momentum=constant(self.momentum),
            exports_teacher=False,
        )

    def optimization(self, length: RunLength) -> Optimization:
        base_lr, weight_decay = {"sgd": (0.03, 1e-4), "adamw": (5e-4, 0.05)}[self.optimizer]
        base_lr = base_lr if self.base_lr is None else self.base_lr
        warmup = self.warmup_epochs
        if warmup is None:
            warmup = 0 if length.batch_size <= 256 else 10 if length.epochs > 500 else 5
        return Optimization(
            optimizer=self.optimizer,
            lr=falling_by_epoch(base_lr * length.batch_size / 256, warmup),
            weight_decay=constant(weight_decay if self.weight_decay is None else self.weight_decay),
            decay_all=self.optimizer == "sgd",
        )


def falling_by_epoch(peak: float, warmup_epochs: int) -> Schedule:
    """Half a cosine to a thousandth of the peak that counts epochs from 1; before it a line up to where it then is."""

    def cosine(epoch: int, epochs: int) -> float:
        return peak * (LEAST_RATE + (1 - LEAST_RATE) * (1 + math.cos(math.pi * epoch / epochs)) / 2)

    def at(time: Time) -> float:
        if time.epoch < warmup_epochs:
            done = time.step / (warmup_epochs * time.steps_per_epoch)
            return peak / 6 + done * (cosine(warmup_epochs, time.epochs) - peak / 6)
        return cosine(time.epoch + 1, time.epochs)

    return at
