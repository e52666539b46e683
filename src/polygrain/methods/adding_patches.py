"""Settings of iBOT's masked patches, which can be added to methods with a teacher."""

from dataclasses import dataclass

from polygrain.methods.base import Method
from polygrain.objectives.patch_distil import MaskedPatches, patch_head
from polygrain.parts.masks import BlockMask
from polygrain.ranges import COUNT, NOT_NEGATIVE, PART, POSITIVE, SEVERAL, SHARE, check_ranges, check_scale
from polygrain.schedules import constant, cosine
from polygrain.views import Crops


@dataclass(frozen=True, kw_only=True)
class MaskedPatchSettings:
    """iBOT's loss of hidden patches (arXiv:2111.07832), with a head of its own.

    The student is then not shown some patches of the large crops, in whatever else it learns from them too, as in iBOT.
    Student and teacher must see the same large crops (in Mugs, share_large_crops).

    Args:
        weight: multiplier of the objective; 0 leaves it out.
        hidden: width of the projector's hidden layers.
        prototype_dim: width of the prototypes.
        prototypes: their number.
        student_temperature: of the student's assignment to prototypes.
        teacher_temperature: of the teacher's.
        centre_momentum: how much of the centre of the teacher's logits stays at each step.
        freeze_prototypes_epochs: epochs at the start in which prototypes do not move.
        mask_probability: that anything is hidden in a large crop.
        mask_ratio: range of the share of patches to hide.
        momentum: of the teacher that is made for a method without one, at the start; rises to 1 along a cosine.
    """

    weight: float = 1.0
    hidden: int = 2048
    prototype_dim: int = 256
    prototypes: int = 8192
    student_temperature: float = 0.1
    teacher_temperature: float = 0.04
    centre_momentum: float = 0.9
    freeze_prototypes_epochs: int = 1
    mask_probability: float = 0.5
    mask_ratio: tuple[float, float] = (0.1, 0.5)
    momentum: float = 0.996

    def __post_init__(self) -> None:
        kinds = {
            NOT_NEGATIVE: "weight",
            SEVERAL: "prototypes",
            COUNT: "hidden prototype_dim",
            POSITIVE: "student_temperature teacher_temperature",
            PART: "mask_probability",
            SHARE: "mask_ratio centre_momentum momentum",
        }
        check_ranges(self, kinds)
        check_scale("mask_ratio", self.mask_ratio)

    def add_to(self, method: Method) -> None:
        """Adds the objective as "patches".

        Raises:
            ValueError: when the encoder is not a ViT, the method hides patches already, or its student and teacher see
                different large crops.
        """
        pair = method.with_teacher(cosine(self.momentum, 1.0))
        stride = pair.student.stride

        def mask(crops: Crops) -> BlockMask:
            return BlockMask(side=crops.size // stride, probability=self.mask_probability, ratio=self.mask_ratio)

        method.hide(mask)
        head = patch_head(
            pair.student.dim,
            hidden=self.hidden,
            out=self.prototype_dim,
            prototypes=self.prototypes,
            fixed_norm=False,
        )
        objective = MaskedPatches(
            *head,
            shared=False,
            student_temperature=self.student_temperature,
            teacher_temperature=constant(self.teacher_temperature),
            centre_momentum=self.centre_momentum,
            freeze_epochs=self.freeze_prototypes_epochs,
        )
        method.add("patches", objective, self.weight)
