"""PCL: prototypical contrastive learning of unsupervised representations (arXiv:2005.04966)."""

from dataclasses import dataclass, replace
from typing import Literal

from polygrain.methods.base import Method
from polygrain.methods.optimization import Optimization
from polygrain.objectives.prototypical import PrototypicalContrast
from polygrain.parts.encoder import Encoder
from polygrain.parts.shuffle import shuffle_between_ranks
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
from polygrain.schedules import RunLength, constant, cosine_by_epoch
from polygrain.views import Crops


@dataclass(frozen=True, kw_only=True)
class PCL:
    """MoCo, and each image against the centroids of clusters that its teacher's features form, at several grains.

    Defaults are those of PCL v2 with ResNet-50 for 200 epochs at batch 256 (official code, 964da1f).

    Args:
        large_size: side of the student's crop and the teacher's, in pixels.
        large_scale: their share of the image area.
        blur_scale: factor on the sigma of blurs, which the recipes give for crops of 224 pixels.
        hidden: width of the projector's hidden layer.
        out: width of the keys and centroids.
        queue_size: negatives of the instance term, and of the group term at most.
        temperature: of the instance term, and the mean of those of the clusters.
        clusters: how many in each clustering; by default 25,000, 50,000 and 100,000 on ImageNet's 1,281,167 images,
            in proportion on others.
        kmeans_iterations: before each epoch.
        kmeans_redos: starts of k-means, of which the best counts.
        warmup_epochs: in which the instance term stands alone; clusters are found from then on.
        momentum: of the teacher, which moves before it encodes.
        optimizer: SGD with momentum 0.9 as in the paper, or AdamW.
        base_lr: learning rate per 256 images; by default 0.03 with SGD, 5e-4 with AdamW. It falls along a cosine,
            epoch by epoch.
        weight_decay: by default 1e-4 of all parameters with SGD, 0.05 of weights alone with AdamW.
        batch_norm: of the encoder over devices: "synced", statistics of the whole batch, or "shuffled", each device
            by itself, with the teacher's images dealt anew, as in the paper.
        compat: "official" lets the cluster of two images of a batch stand among the candidates twice, as in the
            authors' code: once as a wrong answer for either.
    """

    large_size: int = 224
    large_scale: tuple[float, float] = (0.2, 1.0)
    blur_scale: float = 1.0
    hidden: int = 2048
    out: int = 128
    queue_size: int = 16384
    temperature: float = 0.2
    clusters: tuple[int, ...] | None = None
    kmeans_iterations: int = 20
    kmeans_redos: int = 5
    warmup_epochs: int = 20
    momentum: float = 0.999
    optimizer: Literal["sgd", "adamw"] = "sgd"
    base_lr: float | None = None
    weight_decay: float | None = None
    batch_norm: Literal["synced", "shuffled"] = "synced"
    compat: Literal["fixed", "official"] = "fixed"

    def __post_init__(self) -> None:
        kinds = {
            PIXELS: "large_size",
            SEVERAL: "clusters",
            COUNT: "hidden out queue_size kmeans_iterations kmeans_redos",
            NUMBER: "warmup_epochs",
            PART: "large_scale",
            SHARE: "momentum",
            POSITIVE: "temperature base_lr",
            NOT_NEGATIVE: "blur_scale weight_decay",
        }
        check_ranges(self, kinds)
        check_scale("large_scale", self.large_scale)

    def build(self, encoder: Encoder) -> Method:
        query = Crops(
            name="query",
            count=1,
            size=self.large_size,
            scale=self.large_scale,
            recipes=("moco2",),
            blur_scale=self.blur_scale,
        )
        objective = PrototypicalContrast(
            encoder.dim,
            hidden=self.hidden,
            out=self.out,
            queue_size=self.queue_size,
            temperature=self.temperature,
            counts=self.clusters,
            start_epoch=self.warmup_epochs,
            iterations=self.kmeans_iterations,
            redos=self.kmeans_redos,
            repeat=self.compat == "official",
        )
        pair = StudentTeacher(encoder)
        if self.batch_norm == "shuffled":
            shuffle_between_ranks(pair)
        return Method(
            pair,
            {"group": objective},
            weights={"group": 1.0},
            student_sees=(query,),
            teacher_sees=(replace(query, name="key"),),
            momentum=constant(self.momentum),
            exports_teacher=False,
            teacher_first=True,
        )

    def optimization(self, length: RunLength) -> Optimization:
        base_lr, weight_decay = {"sgd": (0.03, 1e-4), "adamw": (5e-4, 0.05)}[self.optimizer]
        peak = (base_lr if self.base_lr is None else self.base_lr) * length.batch_size / 256
        return Optimization(
            optimizer=self.optimizer,
            lr=cosine_by_epoch(peak),
            weight_decay=constant(weight_decay if self.weight_decay is None else self.weight_decay),
            decay_all=self.optimizer == "sgd",
        )
