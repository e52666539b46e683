"""Choices about classification with frozen features."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from polygrain.evaluate.settings.base import FeatureSettings, Readout
from polygrain.evaluate.settings.choices import check_held_out, check_one_of, check_subset, check_warmup
from polygrain.evaluate.settings.heads import PRESETS, HeadRecipe


@dataclass(frozen=True, kw_only=True)
class KnnSettings(FeatureSettings):
    """Weighted kNN as in DINO (arXiv:2104.14294, official `eval_knn.py`).

    Args:
        k: numbers of neighbours, all evaluated in one pass; a k above the number of images becomes that number.
        temperature: of the votes exp(cosine / temperature); DINO 0.07, Mugs 0.05 (ViT-S) and 0.04 (ViT-B, ViT-L).
    """

    k: tuple[int, ...] = (10, 20, 100, 200)
    temperature: float = 0.07

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.k or min(self.k) < 1:
            raise ValueError(f"k is {list(self.k)}; give one or more numbers of neighbours, each 1 or more")
        if not self.temperature > 0:
            raise ValueError(f"temperature is {self.temperature}; it must be above 0")


@dataclass(frozen=True, kw_only=True)
class LinearSettings(FeatureSettings):
    """Linear classifiers on frozen features: all learning rates together, or a paper's recipe with `--preset`.

    Args:
        preset: `sweep` takes features that are computed once, `sweep_bn` the same behind a batch norm; all others
            (dino_s, dino_b, dino_resnet, dinov2, mugs_s_100ep, mugs_s_300ep, mugs_s_800ep, mugs_b, mugs_l, vicreg,
            vicregl_convnext, mae) augment the images in every epoch, as their papers do.
        readout: which vector of an image; by default the preset's, or `pooled`, what the backbone itself returns;
            `cls4` the class tokens of the last four blocks, each after the final norm, side by side; `mean` the mean
            of the patches of the last block; `cls1+mean` the last class token with it.
        readouts: several of them, swept together with the learning rates; all but `pooled`.
        learning_rates: per 256 images; each is multiplied by images per step / 256. By default the preset's.
        epochs: by default the preset's, 100 in most; a sweep over few images takes as many as make 2,000 steps.
        warmup_epochs: of them over which learning rates rise; by default the preset's, which only mae has.
        head_batch_size: images per step of the classifiers, as far as there are so many; by default the preset's, 256
            for a sweep.
        held_out: share of the training images that chooses among classifiers (and epochs) and trains nothing.
    """

    preset: str = "sweep"
    readout: Readout | None = None  # type: ignore[assignment]  # the only protocol whose preset may have another
    readouts: tuple[Readout, ...] | None = None
    learning_rates: tuple[float, ...] | None = None
    epochs: int | None = None
    warmup_epochs: int | None = None
    head_batch_size: int | None = None
    held_out: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_one_of("preset", self.preset, PRESETS)
        rates = self.learning_rates
        if rates is not None and (not rates or min(rates) <= 0):
            raise ValueError(f"learning_rates are {list(rates)}; give one or more, each above 0")
        check_held_out(self.held_out)
        for name in ("epochs", "head_batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; it must be 1 or more")
        recipe = self.recipe()
        check_warmup(self.preset, recipe.epochs, recipe.warmup_epochs)
        self._check_readouts()

    def _check_readouts(self) -> None:
        if self.readouts is None:
            return
        told = f"readouts are [{', '.join(self.readouts)}]"
        if self.readout is not None:
            raise ValueError(f"readout is {self.readout} and {told}; give one of them, readouts for several")
        if len(set(self.readouts)) < max(1, len(self.readouts)):
            raise ValueError(f"{told}; give one or more, each once")
        if len(self.readouts) > 1 and "pooled" in self.readouts:
            raise ValueError(f"{told}, and pooled cannot be swept with others; use cls1, cls4, mean and their sums")

    def recipe(self) -> HeadRecipe:
        """The preset with what was given besides."""
        preset = PRESETS[self.preset]
        named = (self.readout,) if self.readout is not None else preset.readouts or ("pooled",)
        return dataclasses.replace(
            preset,
            readouts=self.readouts or named,
            learning_rates=self.learning_rates or preset.learning_rates,
            epochs=self.epochs or preset.epochs,
            warmup_epochs=preset.warmup_epochs if self.warmup_epochs is None else self.warmup_epochs,
            least_steps=0 if self.epochs else preset.least_steps,
            head_batch_size=self.head_batch_size or preset.head_batch_size,
        )

    def of_protocol(self) -> dict[str, Any]:
        settings = {name: value for name, value in super().of_protocol().items() if name != "readout"}
        return settings | dataclasses.asdict(self.recipe())


@dataclass(frozen=True, kw_only=True)
class LogisticSettings(FeatureSettings):
    """Logistic regression on frozen features, on all labels or 1 % or 10 % of them.

    Args:
        form: `mugs` and `ibot`: features of length 1, no intercept, penalty strength / n |W|^2 / 2. `dinov2`: features
            as they are, with intercept, 45 values of C = 1 / strength. `ridge`: least squares in closed form, quickest.
        strengths: of the penalty, all tried; by default the form's.
        share: of the training images of each class that is used, one at least; the same ones for the same seed.
        list: file that names the training images to use, one to a line, such as SimCLR's lists for ImageNet.
        held_out: share of those images that chooses the strength; the classifier is then fitted to all.
    """

    form: Literal["mugs", "ibot", "dinov2", "ridge"] = "mugs"
    strengths: tuple[float, ...] | None = None
    share: float | None = None
    list: str | None = None
    held_out: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.strengths is not None and (not self.strengths or min(self.strengths) <= 0):
            raise ValueError(f"strengths are {[*self.strengths]}; give one or more, each above 0")
        check_subset(self.share, self.list)
        check_held_out(self.held_out)

    def of_protocol(self) -> dict[str, Any]:
        return {name: value for name, value in super().of_protocol().items() if name not in ("share", "list")}


@dataclass(frozen=True, kw_only=True)
class FewShotSettings(FeatureSettings):
    """Few-shot classification with frozen features: some labelled images of each class, drawn several times.

    Args:
        shots: numbers of images of each class.
        draws: of the images, each with its own seed; one where all images are shots.
        classifier: `centroid` takes the class whose mean vector is nearest, `knn` lets all shots vote (weighted as
            in DINO), `logistic` fits a logistic regression (that of Mugs, strength 0.1). All by cosine similarity.
    """

    shots: tuple[int, ...] = (1, 2, 5)
    draws: int = 5
    classifier: Literal["centroid", "knn", "logistic"] = "centroid"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.shots or min(self.shots) < 1:
            raise ValueError(f"shots are {[*self.shots]}; give one or more numbers of images, each 1 or more")
        if self.draws < 2:
            raise ValueError(f"draws is {self.draws}; an interval needs 2 or more")
