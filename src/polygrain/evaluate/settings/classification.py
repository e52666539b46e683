"""Choices about classification with frozen features."""

from dataclasses import dataclass

from polygrain.evaluate.settings.base import FeatureSettings


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
    """A linear classifier on features that are computed once, for all learning rates together.

    Args:
        learning_rates: per 256 images; each is multiplied by head_batch_size / 256.
        epochs: passes over the features; the learning rate follows a cosine to 0, epoch by epoch.
        head_batch_size: features per step of the classifier.
        held_out: share of the training images that chooses the learning rate and trains nothing.
    """

    learning_rates: tuple[float, ...] = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
    epochs: int = 100
    head_batch_size: int = 256
    held_out: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.learning_rates or min(self.learning_rates) <= 0:
            raise ValueError(f"learning_rates are {list(self.learning_rates)}; give one or more, each above 0")
        if not 0 < self.held_out < 1:
            raise ValueError(f"held_out is {self.held_out}; it must lie between 0 and 1, for example 0.1")
        for name in ("epochs", "head_batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 1 or more")
