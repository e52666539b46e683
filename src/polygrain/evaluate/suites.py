"""The protocols that models are compared under."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

from polygrain.evaluate.few_shot import evaluate_few_shot
from polygrain.evaluate.knn import evaluate_knn
from polygrain.evaluate.linear import evaluate_linear
from polygrain.evaluate.logistic import evaluate_logistic
from polygrain.evaluate.models import Model
from polygrain.evaluate.result import Result
from polygrain.evaluate.retrieval.correspond import evaluate_correspond
from polygrain.evaluate.retrieval.retrieve import evaluate_retrieve
from polygrain.evaluate.segmentation.knn import evaluate_segment_knn
from polygrain.evaluate.segmentation.linear import evaluate_segment_linear
from polygrain.evaluate.segmentation.running import usual_size
from polygrain.evaluate.settings import FewShotSettings, KnnSettings, LinearSettings, LogisticSettings
from polygrain.evaluate.settings.retrieval import CorrespondSettings, RetrieveSettings
from polygrain.evaluate.settings.segmentation import SegmentKnnSettings, SegmentLinearSettings
from polygrain.evaluate.settings.unlabelled import UnlabelledSettings
from polygrain.evaluate.unlabelled.looking import FEWEST
from polygrain.evaluate.unlabelled.protocol import evaluate_unlabelled

T = TypeVar("T")


class Sets(NamedTuple):
    """What models are compared on: labelled images, or images with masks and the lists that split them."""

    train: Any
    test: Any
    split: str | None = None


class Suite(NamedTuple):
    """Protocols, and the side of the images that a model is shown where none is chosen."""

    runs: tuple["Run", ...]
    size_of: Callable[[Model], int]
    least: int = 1  # images to test on


Run = Callable[[Any, Sets, Mapping[str, Any]], Result]  # of model, images, and the settings that all share


def settings_of(kind: Callable[..., T], shared: Mapping[str, Any], **own: Any) -> T:
    """Settings of a protocol, with those of the shared ones that it has."""
    names = inspect.signature(kind).parameters
    return kind(**{name: value for name, value in shared.items() if name in names}, **own)


def knn(model: Any, sets: Sets, shared: Mapping[str, Any]) -> Result:
    return evaluate_knn(model, sets.train, sets.test, settings_of(KnnSettings, shared, k=(20,)))


def linear(model: Any, sets: Sets, shared: Mapping[str, Any]) -> Result:
    return evaluate_linear(model, sets.train, sets.test, settings_of(LinearSettings, shared))


def tenth(model: Any, sets: Sets, shared: Mapping[str, Any]) -> Result:
    return evaluate_logistic(model, sets.train, sets.test, settings_of(LogisticSettings, shared, share=0.1))


def few_shot(model: Any, sets: Sets, shared: Mapping[str, Any]) -> Result:
    return evaluate_few_shot(model, sets.train, sets.test, settings_of(FewShotSettings, shared))


def retrieve(model: Any, sets: Sets, shared: Mapping[str, Any]) -> Result:
    return evaluate_retrieve(model, sets.test, settings=settings_of(RetrieveSettings, shared))


def correspond(model: Any, sets: Sets, shared: Mapping[str, Any]) -> Result:
    return evaluate_correspond(model, sets.test, settings=settings_of(CorrespondSettings, shared))


def unlabelled(model: Any, sets: Sets, shared: Mapping[str, Any]) -> Result:
    return evaluate_unlabelled(model, sets.test, settings=settings_of(UnlabelledSettings, shared))


def segment_linear(model: Any, sets: Sets, shared: Mapping[str, Any]) -> Result:
    return evaluate_segment_linear(model, sets.train, sets.test, sets.split, settings_of(SegmentLinearSettings, shared))


def segment_knn(model: Any, sets: Sets, shared: Mapping[str, Any]) -> Result:
    return evaluate_segment_knn(model, sets.train, sets.test, sets.split, settings_of(SegmentKnnSettings, shared))


def trained_at(model: Model) -> int:
    return model.image_size


SUITES: dict[str, Suite] = {
    "quick": Suite((knn, linear), trained_at),
    "full": Suite((knn, linear, tenth, few_shot, retrieve, correspond, unlabelled), trained_at, FEWEST),
    "segmentation": Suite((segment_linear, segment_knn), lambda model: usual_size(model.encoder.stride)),
}
