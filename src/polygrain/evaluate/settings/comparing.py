"""Choices about a comparison of models."""

from dataclasses import dataclass, fields
from typing import Any, Literal

from polygrain.evaluate.settings.base import FeatureSettings
from polygrain.evaluate.settings.unused import refuse

OF_SEGMENTATION = ("size", "workers", "device", "seed")


@dataclass(frozen=True, kw_only=True)
class CompareSettings(FeatureSettings):
    """Several models under the same protocols, with paired intervals of their differences.

    Args:
        suite: `quick` is kNN and the linear sweep on features computed once; `full` adds logistic regression on 10 % of
            the labels, few shots, retrieval, correspondence between crops, and the measures without labels;
            `segmentation` is the linear and the nearest-neighbour segmentation of images with masks.
        test_share: share of each class of --data that is kept to test on where --val is not given.
    """

    suite: Literal["quick", "full", "segmentation"] = "quick"
    test_share: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.test_share < 1:
            raise ValueError(f"test_share is {self.test_share}; it must lie between 0 and 1, for example 0.2")
        if self.suite == "segmentation":
            others = [field for field in fields(self) if field.name not in (*OF_SEGMENTATION, "suite")]
            refuse(self, "segmentation", **{field.name: field.default for field in others})

    def shared(self) -> dict[str, Any]:
        """What every protocol of the suite is given."""
        named = OF_SEGMENTATION if self.suite == "segmentation" else [field.name for field in fields(FeatureSettings)]
        return {name: getattr(self, name) for name in named}
