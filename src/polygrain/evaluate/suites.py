"""The protocols that models are compared under."""

from collections.abc import Callable, Mapping
from typing import Any

from polygrain.evaluate.knn import evaluate_knn
from polygrain.evaluate.linear import evaluate_linear
from polygrain.evaluate.result import Result
from polygrain.evaluate.settings import KnnSettings, LinearSettings

Run = Callable[[Any, Any, Any, Mapping[str, Any]], Result]


def knn(model: Any, data: Any, val: Any, shared: Mapping[str, Any]) -> Result:
    return evaluate_knn(model, data, val, KnnSettings(k=(20,), **shared))


def linear(model: Any, data: Any, val: Any, shared: Mapping[str, Any]) -> Result:
    return evaluate_linear(model, data, val, LinearSettings(epochs=30, **shared))


SUITES: dict[str, tuple[Run, ...]] = {"quick": (knn, linear), "full": (knn, linear)}
