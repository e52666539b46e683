"""Mugs: a multi-granular self-supervised learning framework (arXiv:2203.14415)."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from polygrain.methods.base import Method
from polygrain.methods.optimization import Optimization
from polygrain.objectives.base import Objective
from polygrain.objectives.contrast import InstanceDiscrimination, QueueContrast
from polygrain.objectives.distil import GroupDiscrimination
from polygrain.objectives.local_group import LocalGroupDiscrimination, Query
from polygrain.parts.encoder import Encoder
from polygrain.parts.teacher import StudentTeacher
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
from polygrain.schedules import RunLength, cosine, ramp_by_epoch, warmup_cosine
from polygrain.views import Crops


@dataclass(frozen=True, kw_only=True)
class Mugs:
    """Instance, local-group and group discrimination by a student and the moving average of its weights.

    Defaults are those of ViT-S/16 for 100 epochs on ImageNet (official `pretraining.sh`); the encoder's drop path
    (0.1) and position codes ("dino") belong to the encoder.

    Args:
        large_size: side of the two large crops of each network, in pixels.
        large_scale: their share of the image area.
        small_size: side of the student's small crops, in pixels.
        small_scale: their share of the image area.
        small_crops: number of small crops; 0 for none.
        blur_scale: factor on the sigma of blurs, which the recipes give for crops of 224 pixels.
        strong_probability: that the student's pair of large crops, and each small crop, is strongly augmented.
        share_large_crops: the student sees the teacher's large crops instead of two of its own.
        instance_weight: of instance discrimination; the loss is the weighted mean of the terms, 0 leaves one out.
        local_group_weight: of local-group discrimination.
        group_weight: of group discrimination.
        hidden: width of the hidden layers of all three projectors.
        predictor_hidden: width of the hidden layer of both predictors.
        out: width of keys and predictions.
        prototype_dim: width of the prototypes.
        batch_norm_in_heads: BatchNorm after the hidden layers of the projectors.
        queue_size: negatives of the instance and local-group terms.
        temperature: of the InfoNCE of both.
        memory_size: vectors in each of the two memories.
        neighbours: how many nearest neighbours make a local group with an image.
        relation_depth: blocks of the aggregator; released weights have 1.
        query: what looks for neighbours, see LocalGroupDiscrimination.
        prototypes: number of groups.
        student_temperature: of the student's assignment to prototypes.
        teacher_temperature: of the teacher's, after its warm-up.
        teacher_temperature_start: in the first epoch.
        teacher_temperature_epochs: length of its warm-up.
        centre_momentum: how much of the centre of the teacher's logits stays at each step.
        freeze_prototypes_epochs: epochs at the start in which prototypes do not move.
        fixed_prototype_norm: prototypes have length 1 instead of learnt lengths.
        momentum: of the teacher at the start; rises to 1 along a cosine.
        base_lr: learning rate per 256 images.
        min_lr: at the end, whatever the batch size.
        warmup_epochs: in which the learning rate rises from 0.
        patch_embed_lr: factor on the learning rate of the patch embedding.
        weight_decay: at the start.
        weight_decay_end: at the end, reached along a cosine.
        clip: largest norm of the gradient of each single tensor.
        late_clip: the same after epoch 100, counted from 0 (ViT-L); None for no change.
        compat: "official" repeats three errors of the authors' code (10ab634): the pointers of the memories advance
            twice, rows of a memory never written return other noise than they are found by, and term weights only
            switch terms on or off.
    """

    large_size: int = 224
    large_scale: tuple[float, float] = (0.25, 1.0)
    small_size: int = 96
    small_scale: tuple[float, float] = (0.05, 0.25)
    small_crops: int = 10
    blur_scale: float = 1.0
    strong_probability: float = 0.5
    share_large_crops: bool = False
    instance_weight: float = 1.0
    local_group_weight: float = 1.0
    group_weight: float = 1.0
    hidden: int = 2048
    predictor_hidden: int = 4096
    out: int = 256
    prototype_dim: int = 256
    batch_norm_in_heads: bool = False
    queue_size: int = 65536
    temperature: float = 0.2
    memory_size: int = 65536
    neighbours: int = 8
    relation_depth: int = 1
    query: Query = "tokens"
    prototypes: int = 65536
    student_temperature: float = 0.1
    teacher_temperature: float = 0.04
    teacher_temperature_start: float = 0.04
    teacher_temperature_epochs: int = 0
    centre_momentum: float = 0.9
    freeze_prototypes_epochs: int = 1
    fixed_prototype_norm: bool = False
    momentum: float = 0.996
    base_lr: float = 8e-4
    min_lr: float = 1e-6
    warmup_epochs: float = 10
    patch_embed_lr: float = 0.2
    weight_decay: float = 0.04
    weight_decay_end: float = 0.2
    clip: float = 3.0
    late_clip: float | None = None
    compat: Literal["fixed", "official"] = "fixed"

    def __post_init__(self) -> None:
        kinds = {
            PIXELS: "large_size small_size",
            SEVERAL: "prototypes",
            COUNT: "hidden predictor_hidden out prototype_dim queue_size memory_size neighbours relation_depth",
            NUMBER: "small_crops teacher_temperature_epochs freeze_prototypes_epochs warmup_epochs",
            PART: "large_scale small_scale",
            SHARE: "strong_probability centre_momentum momentum",
            POSITIVE: "temperature student_temperature teacher_temperature teacher_temperature_start base_lr clip "
            "late_clip",
            NOT_NEGATIVE: "blur_scale instance_weight local_group_weight group_weight min_lr patch_embed_lr "
            "weight_decay weight_decay_end",
        }
        check_ranges(self, kinds)
        check_scale("large_scale", self.large_scale)
        check_scale("small_scale", self.small_scale)

    def build(self, encoder: Encoder) -> Method:
        """The student with its teacher, and the terms whose weight is above 0.

        Raises:
            ValueError: for weights that are all 0, or a memory size that cannot be.
        """
        pair = StudentTeacher(encoder)
        contrast = partial(
            QueueContrast,
            encoder.dim,
            hidden=self.hidden,
            predictor_hidden=self.predictor_hidden,
            out=self.out,
            queue_size=self.queue_size,
            temperature=self.temperature,
            batch_norm=self.batch_norm_in_heads,
        )
        terms: dict[str, Callable[[], Objective]] = {
            "instance": lambda: InstanceDiscrimination(contrast()),
            "local_group": lambda: LocalGroupDiscrimination(
                pair,
                contrast(),
                memory_size=self.memory_size,
                neighbours=self.neighbours,
                depth=self.relation_depth,
                query=self.query,
                official=self.compat == "official",
            ),
            "group": lambda: GroupDiscrimination(
                encoder.dim,
                hidden=self.hidden,
                out=self.prototype_dim,
                prototypes=self.prototypes,
                student_temperature=self.student_temperature,
                teacher_temperature=ramp_by_epoch(
                    self.teacher_temperature_start, self.teacher_temperature, self.teacher_temperature_epochs
                ),
                centre_momentum=self.centre_momentum,
                freeze_epochs=self.freeze_prototypes_epochs,
                fixed_norm=self.fixed_prototype_norm,
                batch_norm=self.batch_norm_in_heads,
            ),
        }
        weights, (teacher_sees, *student_sees) = self._weights(), self._crops()
        return Method(
            pair,
            {name: terms[name]() for name in weights},
            weights=weights,
            student_sees=student_sees,
            teacher_sees=(teacher_sees,),
            momentum=cosine(self.momentum, 1.0),
        )

    def _weights(self) -> dict[str, float]:
        """Multipliers of the terms that are on; they add up to 1."""
        given = {"instance": self.instance_weight, "local_group": self.local_group_weight, "group": self.group_weight}
        if not any(given.values()):
            raise ValueError(f"the weights of Mugs are {given}; one must be above 0")
        switches = {name: 1.0 if self.compat == "official" else weight for name, weight in given.items() if weight}
        return {name: weight / sum(given.values()) for name, weight in switches.items()}

    def _crops(self) -> list[Crops]:
        """What the teacher sees, then what the student sees."""
        teacher = Crops(
            name="teacher",
            count=2,
            size=self.large_size,
            scale=self.large_scale,
            recipes=("dino_1", "dino_2"),
            blur_scale=self.blur_scale,
        )
        student = replace(
            teacher,
            name="student",
            strong_recipe="mugs_strong",
            strong_probability=self.strong_probability,
            strong_together=True,
        )
        small = replace(
            student,
            name="small",
            count=self.small_crops,
            size=self.small_size,
            scale=self.small_scale,
            recipes=("dino_local",),
            strong_together=False,
        )
        return [teacher, teacher if self.share_large_crops else student, *([small] if self.small_crops else [])]

    def optimization(self, length: RunLength) -> Optimization:
        """AdamW with a schedule for the weight decay, and each gradient clipped by itself."""
        late = self.clip if self.late_clip is None else self.late_clip
        return Optimization(
            optimizer="adamw",
            lr=warmup_cosine(self.base_lr * length.batch_size / 256, self.min_lr, self.warmup_epochs),
            weight_decay=cosine(self.weight_decay, self.weight_decay_end),
            patch_embed_lr=self.patch_embed_lr,
            clip=lambda time: late if time.epoch > 100 else self.clip,
            clip_each=True,
        )
