"""MST: masked self-supervised transformer for visual representation (arXiv:2106.05656)."""

from dataclasses import dataclass
from typing import Literal

from polygrain.methods.base import Method
from polygrain.methods.optimization import Optimization
from polygrain.objectives.distil import GroupDiscrimination
from polygrain.objectives.reconstruct import WholePixels
from polygrain.parts.decoder import PatchDecoder
from polygrain.parts.encoder import Encoder
from polygrain.parts.masks import CoinMask, LeastAttended
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
class MST:
    """DINO whose student lacks some patches that matter little to the teacher, and restores its whole crops.

    No code is public. Defaults are DINO's where the paper follows it, ViT-S/16 for 100 epochs; how much is masked and
    the decoder are our choice, see the page of this method.

    Args:
        large_size: side of the two large crops, in pixels.
        large_scale: their share of the image area.
        small_size: side of the small crops, in pixels.
        small_scale: their share of the image area.
        small_crops: number of small crops, which the student alone sees.
        blur_scale: factor on the sigma of blurs, which the recipes give for crops of 224 pixels.
        candidates: share of a large crop's patches that may be hidden: those to which the teacher's class token attends
            least.
        mask_probability: of each candidate to be hidden.
        group_weight: multiplier of DINO's loss.
        restoration_weight: multiplier of the mean absolute error of the restored pixels; 0 leaves the decoder out.
        decoder: "conv" lets patches see their neighbours before pixels are predicted, "linear" does not.
        hidden: width of the projector's two hidden layers.
        prototype_dim: width of its output and of the prototypes.
        prototypes: their number K.
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
        weight_decay: at the start.
        weight_decay_end: at the end, reached along a cosine.
        clip: largest norm of the gradient of each single tensor; None to leave gradients alone.
    """

    large_size: int = 224
    large_scale: tuple[float, float] = (0.4, 1.0)
    small_size: int = 96
    small_scale: tuple[float, float] = (0.05, 0.4)
    small_crops: int = 8
    blur_scale: float = 1.0
    candidates: float = 0.25
    mask_probability: float = 0.5
    group_weight: float = 1.0
    restoration_weight: float = 0.6
    decoder: Literal["conv", "linear"] = "conv"
    hidden: int = 2048
    prototype_dim: int = 256
    prototypes: int = 65536
    student_temperature: float = 0.1
    teacher_temperature: float = 0.04
    teacher_temperature_start: float = 0.04
    teacher_temperature_epochs: int = 0
    centre_momentum: float = 0.9
    freeze_prototypes_epochs: int = 1
    fixed_prototype_norm: bool = True
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
            PART: "large_scale small_scale",
            SHARE: "candidates mask_probability centre_momentum momentum",
            POSITIVE: "student_temperature teacher_temperature teacher_temperature_start base_lr clip group_weight",
            NOT_NEGATIVE: "restoration_weight blur_scale min_lr weight_decay weight_decay_end",
        }
        check_ranges(self, kinds)
        check_scale("large_scale", self.large_scale)
        check_scale("small_scale", self.small_scale)

    def build(self, encoder: Encoder) -> Method:
        """The student with its teacher, whose attention is watched, and a decoder.

        Raises:
            ValueError: when the encoder is not a ViT with a class token.
        """
        pair = StudentTeacher(encoder)
        pair.student.hide("replace")
        pair.teacher.watch()
        large = Crops(
            name="large",
            count=2,
            size=self.large_size,
            scale=self.large_scale,
            recipes=("dino_1", "dino_2"),
            blur_scale=self.blur_scale,
            mask=CoinMask(patches=(self.large_size // encoder.stride) ** 2, probability=self.mask_probability),
        )
        small = Crops(
            name="small",
            count=self.small_crops,
            size=self.small_size,
            scale=self.small_scale,
            recipes=("dino_local",),
            blur_scale=self.blur_scale,
        )
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
        decoder = PatchDecoder(encoder.dim, encoder.stride**2 * encoder.channels, convolve=self.decoder == "conv")
        restoration = {"restoration": WholePixels(decoder, patch=encoder.stride)} if self.restoration_weight else {}
        return Method(
            pair,
            {"group": group, **restoration},
            weights={"group": self.group_weight, "restoration": self.restoration_weight},
            student_sees=(large, small) if self.small_crops else (large,),
            teacher_sees=(large,),
            momentum=cosine(self.momentum, 1.0),
            mask=LeastAttended(share=self.candidates),
        )

    def optimization(self, length: RunLength) -> Optimization:
        clip = self.clip
        return Optimization(
            optimizer="adamw",
            lr=warmup_cosine(self.base_lr * length.batch_size / 256, self.min_lr, self.warmup_epochs),
            weight_decay=cosine(self.weight_decay, self.weight_decay_end),
            clip=None if clip is None else lambda time: clip,
            clip_each=True,
        )
