"""DeepCluster-v2: clusters of the last epoch as labels (arXiv:2006.09882, app. B; DeepCluster, arXiv:1807.05520)."""

from dataclasses import dataclass
from typing import Literal

from polygrain.methods.base import Method
from polygrain.methods.optimization import Optimization
from polygrain.objectives.cluster import ClusterAssignments
from polygrain.parts.encoder import Encoder
from polygrain.ranges import COUNT, NOT_NEGATIVE, NUMBER, PART, PIXELS, POSITIVE, SEVERAL, check_ranges, check_scale
from polygrain.schedules import RunLength, constant, warmup_cosine
from polygrain.views import Crops


@dataclass(frozen=True, kw_only=True)
class DeepClusterV2:
    """Every view predicts its image's cluster, in several k-means clusterings of what the last epoch embedded.

    Defaults are those of ResNet-50 for 800 epochs at batch 4096 (SwAV's official code, 06b1b7c).

    Args:
        large_size: side of the two large crops, whose embeddings are clustered, in pixels.
        large_scale: their share of the image area; by default 0.14 to 1 beside small crops, 0.08 to 1 without.
        small_size: side of the small crops, in pixels.
        small_scale: their share of the image area.
        small_crops: number of small crops; 0 for none.
        blur_scale: factor on the sigma of blurs, which the recipes give for crops of 224 pixels.
        hidden: width of the projector's hidden layer.
        out: width of the embeddings and centroids.
        prototypes: clusters in each clustering.
        clusterings: their number.
        kmeans_iterations: before each epoch.
        temperature: of the prediction.
        optimizer: LARC (SGD with momentum 0.9, scaled tensor by tensor) as in the paper, or AdamW.
        base_lr: learning rate per 256 images; by default 0.3 with LARC, 5e-4 with AdamW.
        end_lr_ratio: share of the highest learning rate that is left at the end.
        warmup_epochs: in which the learning rate rises from `warmup_lr`.
        warmup_lr: at the start of the warm-up, whatever the batch size; the authors' 0.3 is for batch 4096.
        weight_decay: by default 1e-6 of all parameters with LARC, 0.05 of weights alone with AdamW.
    """

    large_size: int = 224
    large_scale: tuple[float, float] | None = None
    small_size: int = 96
    small_scale: tuple[float, float] = (0.05, 0.14)
    small_crops: int = 6
    blur_scale: float = 1.0
    hidden: int = 2048
    out: int = 128
    prototypes: int = 3000
    clusterings: int = 3
    kmeans_iterations: int = 10
    temperature: float = 0.1
    optimizer: Literal["larc", "adamw"] = "larc"
    base_lr: float | None = None
    end_lr_ratio: float = 1e-3
    warmup_epochs: float = 10
    warmup_lr: float = 0.0
    weight_decay: float | None = None

    def __post_init__(self) -> None:
        kinds = {
            PIXELS: "large_size small_size",
            SEVERAL: "prototypes",
            COUNT: "hidden out clusterings kmeans_iterations",
            NUMBER: "small_crops warmup_epochs",
            PART: "large_scale small_scale",
            POSITIVE: "temperature base_lr",
            NOT_NEGATIVE: "blur_scale end_lr_ratio warmup_lr weight_decay",
        }
        check_ranges(self, kinds)
        check_scale("large_scale", self.large_scale)
        check_scale("small_scale", self.small_scale)

    def build(self, encoder: Encoder) -> Method:
        objective = ClusterAssignments(
            encoder.dim,
            hidden=self.hidden,
            out=self.out,
            prototypes=self.prototypes,
            clusterings=self.clusterings,
            temperature=self.temperature,
            iterations=self.kmeans_iterations,
            crops="large",
        )
        return Method(encoder, {"group": objective}, weights={"group": 1.0}, student_sees=self._crops())

    def _crops(self) -> tuple[Crops, ...]:
        scale = self.large_scale or ((0.14, 1.0) if self.small_crops else (0.08, 1.0))
        large, small = (
            Crops(name=name, count=count, size=size, scale=share, recipes=("swav",), blur_scale=self.blur_scale)
            for name, count, size, share in (
                ("large", 2, self.large_size, scale),
                ("small", self.small_crops, self.small_size, self.small_scale),
            )
        )
        return (large, small) if self.small_crops else (large,)

    def optimization(self, length: RunLength) -> Optimization:
        base_lr, weight_decay = {"larc": (0.3, 1e-6), "adamw": (5e-4, 0.05)}[self.optimizer]
        peak = (base_lr if self.base_lr is None else self.base_lr) * length.batch_size / 256
        return Optimization(
            optimizer=self.optimizer,
            lr=warmup_cosine(peak, peak * self.end_lr_ratio, self.warmup_epochs, self.warmup_lr),
            weight_decay=constant(weight_decay if self.weight_decay is None else self.weight_decay),
            decay_all=self.optimizer == "larc",
        )
