"""What a person chooses about an evaluation. Imports nothing heavy, so that `--help` answers at once."""

from polygrain.evaluate.settings.base import FeatureSettings, Readout
from polygrain.evaluate.settings.classification import FewShotSettings, KnnSettings, LinearSettings, LogisticSettings

__all__ = ["FeatureSettings", "FewShotSettings", "KnnSettings", "LinearSettings", "LogisticSettings", "Readout"]
