"""The protocols that models are compared under."""

from collections.abc import Callable, Mapping
from typing import Any

from polygrain.evaluate.few_shot import evaluate_few_shot
from polygrain.evaluate.knn import evaluate_knn
from polygrain.evaluate.linear import evaluate_linear
from polygrain.evaluate.logistic import evaluate_logistic
from polygrain.evaluate.result import Result
from polygrain.evaluate.retrieval.correspond import evaluate_correspond
from polygrain.evaluate.retrieval.retrieve import evaluate_retrieve
from polygrain.evaluate.settings import FewShotSettings, KnnSettings, LinearSettings, LogisticSettings
from polygrain.evaluate.settings.retrieval import CorrespondSettings, RetrieveSettings
from polygrain.evaluate.settings.unlabelled import UnlabelledSettings
from polygrain.evaluate.unlabelled.protocol import evaluate_unlabelled

Run = Callable[[Any, Any, Any, Mapping[str, Any]], Result]  # of model, data, val, and the settings that all share


def knn(model: Any, data: Any, val: Any, shared: Mapping[str, Any]) -> Result:
    return evaluate_knn(model, data, val, KnnSettings(k=(20,), **shared))


def linear(model: Any, data: Any, val: Any, shared: Mapping[str, Any]) -> Result:
    return evaluate_linear(model, data, val, LinearSettings(**shared))


def tenth(model: Any, data: Any, val: Any, shared: Mapping[str, Any]) -> Result:
    return evaluate_logistic(model, data, val, LogisticSettings(share=0.1, **shared))


def few_shot(model: Any, data: Any, val: Any, shared: Mapping[str, Any]) -> Result:
    return evaluate_few_shot(model, data, val, FewShotSettings(**shared))


def retrieve(model: Any, data: Any, val: Any, shared: Mapping[str, Any]) -> Result:
    return evaluate_retrieve(model, val, settings=RetrieveSettings(**shared))


def correspond(model: Any, data: Any, val: Any, shared: Mapping[str, Any]) -> Result:
    return evaluate_correspond(model, val, settings=CorrespondSettings(**shared))


def unlabelled(model: Any, data: Any, val: Any, shared: Mapping[str, Any]) -> Result:
    return evaluate_unlabelled(model, val, settings=UnlabelledSettings(**shared))


SUITES: dict[str, tuple[Run, ...]] = {
    "quick": (knn, linear),
    "full": (knn, linear, tenth, few_shot, retrieve, correspond, unlabelled),
}
