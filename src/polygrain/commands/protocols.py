"""The protocols of `polygrain evaluate`: what each asks for, and the function that runs it."""

import importlib
from typing import Any, NamedTuple

from polygrain.evaluate.settings import (
    FeatureSettings,
    FewShotSettings,
    KnnSettings,
    LinearSettings,
    LogisticSettings,
)
from polygrain.evaluate.settings.video import TrackSettings

TRAIN, VAL = "Labelled training images: folder or shards.", "Labelled images to classify: folder or shards."


class Protocol(NamedTuple):
    """One protocol, named without importing what runs it."""

    settings: type[FeatureSettings]
    runs: str  # "module:function", called with model, the data by name, and settings; gives a Result
    data: dict[str, str]  # options that name data, with their help; those ending in "?" may be left out

    def function(self) -> Any:
        module, _, name = self.runs.partition(":")
        return getattr(importlib.import_module(module), name)


PROTOCOLS: dict[str, Protocol] = {
    "knn": Protocol(KnnSettings, "polygrain.evaluate.knn:evaluate_knn", {"data": TRAIN, "val": VAL}),
    "linear": Protocol(LinearSettings, "polygrain.evaluate.linear:evaluate_linear", {"data": TRAIN, "val": VAL}),
    "logistic": Protocol(
        LogisticSettings, "polygrain.evaluate.logistic:evaluate_logistic", {"data": TRAIN, "val": VAL}
    ),
    "few_shot": Protocol(FewShotSettings, "polygrain.evaluate.few_shot:evaluate_few_shot", {"data": TRAIN, "val": VAL}),
    "track": Protocol(
        TrackSettings, "polygrain.evaluate.track:evaluate_track", {"data": "Videos: a DAVIS folder or tar archive."}
    ),
}
