"""Choices about a comparison of models."""

from dataclasses import dataclass, fields
from typing import Literal

from polygrain.evaluate.settings.base import FeatureSettings

OF_SEGMENTATION = ("size", "workers", "device", "seed")


@dataclass(frozen=True, kw_only=True)
class CompareSettings(FeatureSettings):
    """Several models under the same protocols, with paired intervals of their differences.

    Args:
        suite: `quick` is kNN and the linear sweep on the same features, which the cache keeps; `full` adds logistic
            regression on 10 % of the labels, few shots, retrieval, correspondence between crops, and the measures
            without labels, for 20 images to test on or more; `segmentation` is the linear and the nearest-neighbour
            segmentation of images with masks.
        test_share: share of each class of --data that is kept to test on where --val is not given; by default 0.2.
    """

    suite: Literal["quick", "full", "segmentation"] = "quick"
    test_share: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.test_share is not None and not 0 < self.test_share < 1:
            raise ValueError(f"test_share is {self.test_share}; it must lie between 0 and 1, for example 0.2")
        if self.suite == "segmentation":
            for field in fields(self):
                value = getattr(self, field.name)
                if field.name not in (*OF_SEGMENTATION, "suite") and value != field.default:
                    told = "the suite segmentation prepares images in its own way, omit it"
                    raise ValueError(f"{field.name} is {value}; {told}")
