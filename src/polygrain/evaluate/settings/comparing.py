"""Choices about a comparison of models."""

from dataclasses import dataclass
from typing import Literal

from polygrain.evaluate.settings.base import FeatureSettings


@dataclass(frozen=True, kw_only=True)
class CompareSettings(FeatureSettings):
    """Several models under the same protocols, with paired intervals of their differences.

    Args:
        suite: `quick` is kNN and the linear sweep on features computed once; `full` adds logistic regression on 10 % of
            the labels, few shots, retrieval, correspondence between crops, and the measures without labels.
        test_share: share of each class of --data that is kept to test on where --val is not given.
    """

    suite: Literal["quick", "full"] = "quick"
    test_share: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.test_share < 1:
            raise ValueError(f"test_share is {self.test_share}; it must lie between 0 and 1, for example 0.2")
