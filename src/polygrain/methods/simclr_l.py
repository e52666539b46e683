"""SimCLR-L: SimCLR with VICRegL's local matching, an ablation of VICRegL (arXiv:2210.01571)."""

from dataclasses import dataclass, replace
from typing import Literal

from polygrain.methods.base import Method
from polygrain.methods.optimization import Optimization
from polygrain.objectives.base import Objective
from polygrain.objectives.in_batch import NTXent
from polygrain.objectives.local_contrast import LocalContrast, Negatives
from polygrain.parts.encoder import Encoder
from polygrain.parts.heads import mlp, normal_init
from polygrain.ranges import COUNT, NOT_NEGATIVE, NUMBER, PART, PIXELS, POSITIVE, SHARE, check_ranges, check_scale
from polygrain.schedules import RunLength, constant, warmup_cosine_by_images
from polygrain.views import Crops


@dataclass(frozen=True, kw_only=True)
class SimCLRL:
    """alpha times SimCLR on whole views, plus (1 - alpha) times SimCLR on matched patches of views.

    The paper gives the idea and no code: where VICRegL's ResNet-50 recipe says nothing of a value, it is chosen here.

    Args:
        alpha: weight of the global criterion, 0 to 1.
        large_size: side of the two large crops, in pixels.
        large_scale: their share of the image area.
        small_size: side of the small crops, in pixels.
        small_scale: their share of the image area.
        small_crops: number of small crops.
        blur_scale: factor on the sigma of blurs, which the recipes give for crops of 224 pixels.
        hidden: width of the global projector's hidden layer.
        out: width of the global embeddings.
        local_width: of the hidden and output layers of the local projector.
        temperature: of the global softmax.
        local_temperature: of the local softmax.
        negatives: of a patch: "slot" takes the matches of the same position in other images, "flat" all matches of
            other images, at many times the cost.
        num_matches: pairs to keep from a large view to another view, and back; -1 for all. By default the paper's
            20 and 4 for every 49 patches of a large view.
        feature: match patches that look alike.
        location: match patches that lie at the same place.
        all_feature_matches: keep all pairs when matching by feature; else `num_matches`.
        optimizer: LARS (ResNet) or AdamW.
        base_lr: learning rate per 256 images; by default 0.3 with LARS, 5e-4 with AdamW.
        end_lr_ratio: share of the highest learning rate that is left at the end.
        warmup_epochs: in which the learning rate rises from 0.
        weight_decay: of weights, not of biases and norms; by default 1e-6 with LARS, 0.05 with AdamW.
        compat: "official" leaves the grids of mirrored crops unmirrored, as VICRegL's released default does.
    """

    alpha: float = 0.75
    large_size: int = 224
    large_scale: tuple[float, float] = (0.08, 1.0)
    small_size: int = 96
    small_scale: tuple[float, float] = (0.08, 0.4)
    small_crops: int = 0
    blur_scale: float = 1.0
    hidden: int = 2048
    out: int = 128
    local_width: int = 512
    temperature: float = 0.1
    local_temperature: float = 0.1
    negatives: Negatives = "slot"
    num_matches: tuple[int, int] | None = None
    feature: bool = True
    location: bool = True
    all_feature_matches: bool = True
    optimizer: Literal["lars", "adamw"] = "lars"
    base_lr: float | None = None
    end_lr_ratio: float = 1e-3
    warmup_epochs: float = 10
    weight_decay: float | None = None
    compat: Literal["fixed", "official"] = "fixed"

    def __post_init__(self) -> None:
        kinds = {
            PIXELS: "large_size small_size",
            COUNT: "hidden out local_width",
            NUMBER: "small_crops warmup_epochs",
            PART: "large_scale small_scale",
            SHARE: "alpha end_lr_ratio",
            POSITIVE: "temperature local_temperature base_lr",
            NOT_NEGATIVE: "blur_scale weight_decay",
        }
        check_ranges(self, kinds)
        check_scale("large_scale", self.large_scale)
        check_scale("small_scale", self.small_scale)

    def build(self, encoder: Encoder) -> Method:
        """One network, judged by one criterion or two."""
        large = Crops(
            name="large",
            count=2,
            size=self.large_size,
            scale=self.large_scale,
            recipes=("byol_a", "byol_b"),
            blur_scale=self.blur_scale,
        )
        small = replace(large, name="small", count=self.small_crops, size=self.small_size, scale=self.small_scale)
        weights = {"instance": self.alpha, "local": 1 - self.alpha}
        terms = {"instance": self._global, "local": self._local}
        return Method(
            encoder,
            {name: terms[name](encoder) for name, weight in weights.items() if weight},
            weights=weights,
            student_sees=(large, small) if self.small_crops else (large,),
        )

    def _global(self, encoder: Encoder) -> Objective:
        projector = mlp(
            (encoder.dim, self.hidden, self.out),
            activation="relu",
            norm="batch",
            bias=False,
            last_bias=False,
            last_norm="gain",
        )
        normal_init(projector, 0.01)
        return NTXent(projector, temperature=self.temperature)

    def _local(self, encoder: Encoder) -> Objective:
        return LocalContrast(
            (encoder.dim, self.local_width, self.local_width, self.local_width),
            norm="batch" if encoder.has_batch_norm else "layer",
            temperature=self.local_temperature,
            negatives=self.negatives,
            num_matches=self.num_matches,
            feature=self.feature,
            location=self.location,
            all_feature_matches=self.all_feature_matches,
            small_crops=True,
            flip_grid=self.compat == "fixed",
        )

    def optimization(self, length: RunLength) -> Optimization:
        base_lr, weight_decay = {"lars": (0.3, 1e-6), "adamw": (5e-4, 0.05)}[self.optimizer]
        peak = (base_lr if self.base_lr is None else self.base_lr) * length.batch_size / 256
        return Optimization(
            optimizer=self.optimizer,
            lr=warmup_cosine_by_images(peak, peak * self.end_lr_ratio, self.warmup_epochs, length),
            weight_decay=constant(weight_decay if self.weight_decay is None else self.weight_decay),
        )
