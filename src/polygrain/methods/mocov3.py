"""MoCo-v3: an empirical study of training self-supervised vision transformers (arXiv:2104.02057)."""

from dataclasses import dataclass
from typing import Literal

from torch import nn

from polygrain.methods.base import Method
from polygrain.methods.optimization import Optimization
from polygrain.objectives.in_batch import PredictedContrast
from polygrain.parts.encoder import Encoder
from polygrain.parts.heads import mlp
from polygrain.parts.moco_vit import start_as_mocov3
from polygrain.parts.teacher import StudentTeacher
from polygrain.ranges import COUNT, NOT_NEGATIVE, NUMBER, PART, PIXELS, POSITIVE, SHARE, check_ranges, check_scale
from polygrain.schedules import RunLength, constant, cosine, warmup_cosine_by_images
from polygrain.views import Crops


@dataclass(frozen=True, kw_only=True)
class MoCoV3:
    """Predictions of one view find the teacher's vector of the other view in the batch; no queue.

    Defaults are those of ViT for 300 epochs on ImageNet (official README, c349e6e). The paper's ViT-S has 12 heads:
    pass `encoder_args {num_heads: 12}` for it.

    Args:
        large_size: side of both crops, in pixels.
        large_scale: their share of the image area; by default 0.2 to 1 for an encoder with batch norm, else 0.08 to 1.
        blur_scale: factor on the sigma of blurs, which the recipes give for crops of 224 pixels.
        hidden: width of the projector's hidden layers.
        predictor_hidden: width of the predictor's hidden layer.
        out: width of keys and predictions.
        temperature: by default 1 for an encoder with batch norm (ResNet), else 0.2 (ViT).
        freeze_patches: the patch projection of a ViT keeps its random weights.
        momentum: of the teacher at the start; rises to 1 along a cosine.
        optimizer: AdamW (ViT) or LARS (ResNet).
        base_lr: learning rate per 256 images; by default 1.5e-4 with AdamW, 0.3 with LARS (0.6 for 100 epochs).
        warmup_epochs: in which the learning rate rises from 0; by default 40 with AdamW, 10 with LARS.
        weight_decay: by default 0.1 with AdamW, of all parameters; 1e-6 with LARS (1.5e-6 for 1000 epochs), of weights.
    """

    large_size: int = 224
    large_scale: tuple[float, float] | None = None
    blur_scale: float = 1.0
    hidden: int = 4096
    predictor_hidden: int = 4096
    out: int = 256
    temperature: float | None = None
    freeze_patches: bool = True
    momentum: float = 0.99
    optimizer: Literal["adamw", "lars"] = "adamw"
    base_lr: float | None = None
    warmup_epochs: float | None = None
    weight_decay: float | None = None

    def __post_init__(self) -> None:
        kinds = {
            PIXELS: "large_size",
            COUNT: "hidden predictor_hidden out",
            NUMBER: "warmup_epochs",
            PART: "large_scale",
            SHARE: "momentum",
            POSITIVE: "temperature base_lr",
            NOT_NEGATIVE: "blur_scale weight_decay",
        }
        check_ranges(self, kinds)
        check_scale("large_scale", self.large_scale)

    def build(self, encoder: Encoder) -> Method:
        """Student and teacher, which moves before it encodes; every view is a batch by itself.

        Raises:
            ValueError: when the encoder is a ViT that has no class token or no grid of positions.
        """
        resnet = encoder.has_batch_norm
        if encoder.family == "vit":
            start_as_mocov3(encoder, freeze_patches=self.freeze_patches)
        crops = Crops(
            name="large",
            count=2,
            size=self.large_size,
            scale=self.large_scale or ((0.2, 1.0) if resnet else (0.08, 1.0)),
            recipes=("moco3_a", "moco3_b"),
            blur_scale=self.blur_scale,
        )
        objective = PredictedContrast(
            *self._heads(encoder.dim, resnet), temperature=self.temperature or (1.0 if resnet else 0.2)
        )
        return Method(
            StudentTeacher(encoder),
            {"instance": objective},
            weights={"instance": 1.0},
            student_sees=(crops,),
            teacher_sees=(crops,),
            momentum=cosine(self.momentum, 1.0),
            exports_teacher=False,
            apart=resnet,  # four passes, as the authors': batch norm can tell
            teacher_first=True,
        )

    def _heads(self, dim: int, resnet: bool) -> tuple[nn.Sequential, nn.Sequential]:
        """Projector and predictor: a ViT's projector has a layer more, and its predictor a norm at the end."""
        inside = [self.hidden] if resnet else [self.hidden, self.hidden]
        projector = mlp(
            (dim, *inside, self.out), activation="relu", norm="batch", bias=False, last_bias=False, last_norm="plain"
        )
        predictor = mlp(
            (self.out, self.predictor_hidden, self.out),
            activation="relu",
            norm="batch",
            bias=False,
            last_bias=False,
            last_norm=not resnet,
        )
        return projector, predictor

    def optimization(self, length: RunLength) -> Optimization:
        """The rate is linear from 0, then a cosine to 0, counted in steps as a share of epochs."""
        base_lr, warmup, weight_decay = {"adamw": (1.5e-4, 40.0, 0.1), "lars": (0.3, 10.0, 1e-6)}[self.optimizer]
        base_lr = base_lr if self.base_lr is None else self.base_lr
        warmup = warmup if self.warmup_epochs is None else self.warmup_epochs
        whole = length._replace(images=length.steps_per_epoch * length.batch_size)
        return Optimization(
            optimizer=self.optimizer,
            lr=warmup_cosine_by_images(base_lr * length.batch_size / 256, 0.0, warmup, whole),
            weight_decay=constant(weight_decay if self.weight_decay is None else self.weight_decay),
            decay_all=self.optimizer == "adamw",
        )
