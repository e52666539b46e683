"""iBOT: image BERT pre-training with online tokenizer (arXiv:2111.07832)."""

from dataclasses import dataclass

from polygrain.methods.base import Method
from polygrain.methods.optimization import Optimization
from polygrain.objectives.distil import GroupDiscrimination
from polygrain.objectives.patch_distil import MaskedPatches
from polygrain.parts.encoder import Encoder
from polygrain.parts.masks import BlockMask
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
class IBOT:
    """DINO whose student is not shown some blocks of its large crops, and says of these patches what the teacher says.

    Defaults are those of ViT-S/16 for 800 epochs on ImageNet (README of the official code da316d8); the encoder's drop
    path (0.1) and position codes ("dino") belong to the encoder. One projector and one set of prototypes serve class
    token and patches, as in all published ViTs.

    Args:
        large_size: side of the two large crops, in pixels.
        large_scale: their share of the image area.
        small_size: side of the small crops, in pixels.
        small_scale: their share of the image area.
        small_crops: number of small crops, which the student alone sees, whole.
        blur_scale: factor on the sigma of blurs, which the recipes give for crops of 224 pixels.
        mask_probability: that anything is hidden in a large crop.
        mask_ratio: range of the share of patches to hide.
        group_weight: multiplier of the loss of the class token.
        patches_weight: multiplier of the loss of hidden patches.
        hidden: width of the projector's two hidden layers.
        prototype_dim: width of its output and of the prototypes.
        prototypes: their number K.
        student_temperature: of the student's assignments to prototypes.
        teacher_temperature: of the teacher's, after its warm-up.
        patch_temperature: of the teacher's for patches, after its warm-up.
        teacher_temperature_start: of both in the first epoch.
        teacher_temperature_epochs: length of their warm-up.
        centre_momentum: how much of the centres of the teacher's logits stays at each step.
        freeze_prototypes_epochs: epochs at the start in which prototypes do not move.
        fixed_prototype_norm: prototypes have length 1 instead of learnt lengths.
        momentum: of the teacher at the start; rises to 1 along a cosine.
        base_lr: learning rate per 256 images.
        min_lr: at the end, whatever the batch size.
        warmup_epochs: in which the learning rate rises from 0.
        weight_decay: at the start.
        weight_decay_end: at the end, reached along a cosine.
        clip: largest norm of the gradient of each single tensor; None to leave gradients alone.
    """

    large_size: int = 224
    large_scale: tuple[float, float] = (0.25, 1.0)
    small_size: int = 96
    small_scale: tuple[float, float] = (0.05, 0.25)
    small_crops: int = 10
    blur_scale: float = 1.0
    mask_probability: float = 0.5
    mask_ratio: tuple[float, float] = (0.1, 0.5)
    group_weight: float = 1.0
    patches_weight: float = 1.0
    hidden: int = 2048
    prototype_dim: int = 256
    prototypes: int = 8192
    student_temperature: float = 0.1
    teacher_temperature: float = 0.07
    patch_temperature: float = 0.07
    teacher_temperature_start: float = 0.04
    teacher_temperature_epochs: int = 30
    centre_momentum: float = 0.9
    freeze_prototypes_epochs: int = 1
    fixed_prototype_norm: bool = False
    momentum: float = 0.996
    base_lr: float = 5e-4
    min_lr: float = 1e-6
    warmup_epochs: float = 10
    weight_decay: float = 0.04
    weight_decay_end: float = 0.4
    clip: float | None = 3.0

    def __post_init__(self) -> None:
        kinds = {
            PIXELS: "large_size small_size",
            SEVERAL: "prototypes",
            COUNT: "hidden prototype_dim",
            NUMBER: "small_crops teacher_temperature_epochs freeze_prototypes_epochs warmup_epochs",
            PART: "large_scale small_scale mask_probability",
            SHARE: "mask_ratio centre_momentum momentum",
            POSITIVE: "student_temperature teacher_temperature patch_temperature teacher_temperature_start base_lr "
            "clip group_weight patches_weight",
            NOT_NEGATIVE: "blur_scale min_lr weight_decay weight_decay_end",
        }
        check_ranges(self, kinds)
        for name in ("large_scale", "small_scale", "mask_ratio"):
            check_scale(name, getattr(self, name))

    def build(self, encoder: Encoder) -> Method:
        """The student with its teacher, and two terms that share a head.

        Raises:
            ValueError: when the encoder is not a ViT.
        """
        pair = StudentTeacher(encoder)
        pair.student.hide("replace")
        group = GroupDiscrimination(
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
            large_views=2 + self.small_crops,  # the plain mean over all pairs, large or small
        )
        patches = MaskedPatches(
            group.projector,
            group.prototypes,
            shared=True,
            student_temperature=self.student_temperature,
            teacher_temperature=ramp_by_epoch(
                self.teacher_temperature_start, self.patch_temperature, self.teacher_temperature_epochs
            ),
            centre_momentum=self.centre_momentum,
        )
        large, *small = self._crops(encoder.stride)
        return Method(
            pair,
            {"group": group, "patches": patches},
            weights={"group": self.group_weight, "patches": self.patches_weight},
            student_sees=(large, *small),
            teacher_sees=(large,),
            momentum=cosine(self.momentum, 1.0),
        )

    def _crops(self, patch: int) -> list[Crops]:
        large = Crops(
            name="large",
            count=2,
            size=self.large_size,
            scale=self.large_scale,
            recipes=("dino_1", "dino_2"),
            blur_scale=self.blur_scale,
            mask=BlockMask(side=self.large_size // patch, probability=self.mask_probability, ratio=self.mask_ratio),
        )
        small = Crops(
            name="small",
            count=self.small_crops,
            size=self.small_size,
            scale=self.small_scale,
            recipes=("dino_local",),
            blur_scale=self.blur_scale,
        )
        return [large, small] if self.small_crops else [large]

    def optimization(self, length: RunLength) -> Optimization:
        clip = self.clip
        return Optimization(
            optimizer="adamw",
            lr=warmup_cosine(self.base_lr * length.batch_size / 256, self.min_lr, self.warmup_epochs),
            weight_decay=cosine(self.weight_decay, self.weight_decay_end),
            clip=None if clip is None else lambda time: clip,
            clip_each=True,
        )
