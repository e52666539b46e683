"""VICRegL: self-supervised learning of local visual features (arXiv:2210.01571)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from polygrain.methods.base import Method
from polygrain.methods.optimization import Optimization
from polygrain.objectives.base import Objective
from polygrain.objectives.local import Local
from polygrain.objectives.vicreg import Convention, Global
from polygrain.parts.encoder import Encoder
from polygrain.ranges import COUNT, NOT_NEGATIVE, NUMBER, PART, PIXELS, POSITIVE, SHARE, check_ranges, check_scale
from polygrain.schedules import RunLength, constant, warmup_cosine_by_images
from polygrain.views import Crops

RECIPES = ("byol_a", "byol_b")  # alternate within the large crops, and again within the small ones


@dataclass(frozen=True, kw_only=True)
class VICRegL:
    """alpha times VICReg on whole views, plus (1 - alpha) times VICReg on matched patches of views.

    Defaults are those of the official code (803ae4c): ConvNeXt with small crops, ResNet without. They leave no
    labels in the loss: the authors' online classifier is not part of the method.

    Args:
        alpha: weight of the global criterion, 0 to 1; at 1 there is no local projector, at 0 no expander.
        large_size: side of the two large crops, in pixels.
        large_scale: their share of the image area; by default 0.4 to 1 beside small crops, 0.08 to 1 without.
        small_size: side of the small crops, in pixels.
        small_scale: their share of the image area.
        small_crops: number of small crops; by default 6, or 0 for an encoder with batch norm, which the authors
            could not train with them.
        blur_scale: factor on the sigma of blurs, which the recipes give for crops of 224 pixels.
        expander_width: of the hidden and output layers of the global expander.
        local_width: of the hidden and output layers of the local projector.
        num_matches: pairs to keep from a large view to another view, and back; -1 for all. By default the paper's
            20 and 4 for every 49 patches of a large view.
        feature: match patches that look alike.
        location: match patches that lie at the same place.
        all_feature_matches: keep all pairs when matching by feature (official default); else `num_matches`.
        spread_once: local variance and covariance once per view instead of once per set of matches: cheaper.
        invariance: coefficient of the mean squared difference, global and local.
        variance: coefficient of the hinge on the standard deviation.
        covariance: coefficient of the squared covariances.
        covariance_of: "vicregl" averages the global covariance terms of views, "vicreg" makes that average twice.
        optimizer: AdamW (ConvNeXt) or LARS (ResNet).
        base_lr: learning rate per 256 images; by default 5e-4 with AdamW, 0.3 with LARS.
        end_lr_ratio: share of the highest learning rate that is left at the end.
        warmup_epochs: in which the learning rate rises from 0.
        weight_decay: of weights, not of biases and norms; by default 0.05 with AdamW, 1e-6 with LARS.
        compat: "official" leaves the grids of mirrored crops unmirrored, as the authors' released default does:
            three quarters of the matches by location are then wrong.
    """

    alpha: float = 0.75
    large_size: int = 224
    large_scale: tuple[float, float] | None = None
    small_size: int = 96
    small_scale: tuple[float, float] = (0.08, 0.4)
    small_crops: int | None = None
    blur_scale: float = 1.0
    expander_width: int = 8192
    local_width: int = 512
    num_matches: tuple[int, int] | None = None
    feature: bool = True
    location: bool = True
    all_feature_matches: bool = True
    spread_once: bool = False
    invariance: float = 25.0
    variance: float = 25.0
    covariance: float = 1.0
    covariance_of: Convention = "vicregl"
    optimizer: Literal["adamw", "lars"] = "adamw"
    base_lr: float | None = None
    end_lr_ratio: float = 1e-3
    warmup_epochs: float = 10
    weight_decay: float | None = None
    compat: Literal["fixed", "official"] = "fixed"

    def __post_init__(self) -> None:
        kinds = {
            PIXELS: "large_size small_size",
            COUNT: "expander_width local_width",
            NUMBER: "small_crops warmup_epochs",
            PART: "large_scale small_scale",
            SHARE: "alpha end_lr_ratio",
            POSITIVE: "base_lr",
            NOT_NEGATIVE: "blur_scale invariance variance covariance weight_decay",
        }
        check_ranges(self, kinds)
        check_scale("large_scale", self.large_scale)
        check_scale("small_scale", self.small_scale)

    def build(self, encoder: Encoder) -> Method:
        """One network, judged by one criterion or two."""
        weights = {"global": self.alpha, "local": 1 - self.alpha}
        terms = {"global": self._global, "local": self._local}
        return Method(
            encoder,
            {name: terms[name](encoder) for name, weight in weights.items() if weight},
            weights=weights,
            student_sees=self._crops(encoder),
            apart=encoder.has_batch_norm,  # the authors run one view at a time, which batch norm can tell
        )

    def _crops(self, encoder: Encoder) -> Sequence[Crops]:
        default = 0 if encoder.has_batch_norm else 6
        count = default if self.small_crops is None else self.small_crops
        scale = self.large_scale or ((0.4, 1.0) if count else (0.08, 1.0))
        large = Crops(
            name="large", count=2, size=self.large_size, scale=scale, recipes=RECIPES, blur_scale=self.blur_scale
        )
        small = Crops(
            name="small",
            count=count,
            size=self.small_size,
            scale=self.small_scale,
            recipes=RECIPES,
            blur_scale=self.blur_scale,
        )
        return (large, small) if count else (large,)

    def _global(self, encoder: Encoder) -> Objective:
        return Global(
            (encoder.dim, self.expander_width, self.expander_width, self.expander_width),
            norm="batch" if encoder.has_batch_norm else "layer",
            covariance_of=self.covariance_of,
            invariance=self.invariance,
            variance=self.variance,
            covariance=self.covariance,
        )

    def _local(self, encoder: Encoder) -> Objective:
        return Local(
            (encoder.dim, self.local_width, self.local_width, self.local_width),
            norm="batch" if encoder.has_batch_norm else "layer",
            num_matches=self.num_matches,
            feature=self.feature,
            location=self.location,
            all_feature_matches=self.all_feature_matches,
            spread_once=self.spread_once,
            small_crops=True,
            flip_grid=self.compat == "fixed",
            invariance=self.invariance,
            variance=self.variance,
            covariance=self.covariance,
        )

    def optimization(self, length: RunLength) -> Optimization:
        base_lr, weight_decay = {"adamw": (5e-4, 0.05), "lars": (0.3, 1e-6)}[self.optimizer]
        base_lr = base_lr if self.base_lr is None else self.base_lr
        peak = base_lr * length.batch_size / 256
        return Optimization(
            optimizer=self.optimizer,
            lr=warmup_cosine_by_images(peak, peak * self.end_lr_ratio, self.warmup_epochs, length),
            weight_decay=constant(weight_decay if self.weight_decay is None else self.weight_decay),
        )
