"""Several models under the same protocols: did it help?"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from polygrain.data.part import stratified
from polygrain.data.sources import Images, open_images
from polygrain.evaluate.metrics import RESAMPLES
from polygrain.evaluate.models import open_model
from polygrain.evaluate.result import Result, aligned
from polygrain.evaluate.settings import FeatureSettings
from polygrain.evaluate.settings.comparing import CompareSettings
from polygrain.evaluate.suites import SUITES

AT_ONCE = 50  # resamples drawn together


class Difference(NamedTuple):
    """How much better one model is than the first, over the same items."""

    model: str
    measure: str
    mean: float
    low: float  # of the 95 % interval
    high: float

    @property
    def verdict(self) -> str:
        if self.low > 0:
            return "better"
        return "worse" if self.high < 0 else "no clear difference"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """All results, and the differences to the first model.

    Args:
        results: by model, in the order of the suite.
    """

    results: Mapping[str, Sequence[Result]]
    differences: Sequence[Difference]
    notes: tuple[str, ...] = ()

    def table(self) -> str:
        """One line for each measure under one protocol; what differs in its fingerprint gets a line of its own."""
        cells = {model: _cells(found) for model, found in self.results.items()}
        lines_of = dict.fromkeys(line for found in cells.values() for line in found)
        body = [[*line, *(found.get(line, "") for found in cells.values())] for line in lines_of]
        lines = [*aligned([["", "protocol", *cells], *body]), ""]
        first = next(iter(self.results))
        lines += [
            f"{difference.model} against {first}, {difference.measure}: {100 * difference.mean:+.1f} points "
            f"[{100 * difference.low:+.1f}, {100 * difference.high:+.1f}]: {difference.verdict}"
            for difference in self.differences
        ]
        told = dict.fromkeys(note for found in self.results.values() for result in found for note in result.notes)
        return "\n".join([*lines, "", *(f"note: {note}" for note in (*self.notes, *told))]).rstrip()

    def json(self) -> str:
        results = {model: [json.loads(result.json()) for result in found] for model, found in self.results.items()}
        differences = [found._asdict() | {"verdict": found.verdict} for found in self.differences]
        return json.dumps({"results": results, "differences": differences, "notes": self.notes}, indent=2)


class Line(NamedTuple):
    """Numbers that may stand beside each other."""

    measure: str
    fingerprint: str


def compare(models: Sequence[Any], data: Any, val: Any = None, settings: CompareSettings | None = None) -> Comparison:
    """Runs the protocols of a suite on every model, on the same images.

    Args:
        models: what `open_model` takes; the first is what the others are compared with.
        data: labelled images; `val`: those to test on, by default a share of each class of `data`.

    Raises:
        ValueError: for fewer than two models, or when something handed in cannot be used.
    """
    settings = settings or CompareSettings()
    names = [model if isinstance(model, str) else f"model {i}" for i, model in enumerate(models, 1)]
    if len(set(names)) < 2 or len(set(names)) < len(names):
        raise ValueError(f"{len(names)} models named {', '.join(names) or '-'}; give two or more, each once")
    train, test, notes = _sets(data, val, settings)
    size, told = _common_size(models, names, settings)
    shared = {field.name: getattr(settings, field.name) for field in dataclasses.fields(FeatureSettings)}
    shared["size"] = size
    results = {
        name: [run(model, train, test, shared) for run in SUITES[settings.suite]]
        for name, model in zip(names, models, strict=True)
    }
    first = results[names[0]]
    differences = [
        difference
        for name in names[1:]
        for one, other in zip(first, results[name], strict=True)
        if one.fingerprint == other.fingerprint
        for difference in _differences(name, one, other, settings.seed)
    ]
    return Comparison(results=results, differences=differences, notes=(*notes, *told))


def paired_interval(differences: NDArray[np.float64], *, seed: int = 0) -> tuple[float, float, float]:
    """Mean of (n,) differences of pairs, and its 95 % interval from 1,000 bootstrap resamples of the pairs."""
    values, counts = np.unique(differences, return_counts=True)
    random = np.random.default_rng(seed)
    means = [
        random.multinomial(len(differences), counts / len(differences), AT_ONCE) @ values / len(differences)
        for _ in range(RESAMPLES // AT_ONCE)
    ]
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5])
    return float(differences.mean()), float(low), float(high)


def _differences(model: str, one: Result, other: Result, seed: int) -> list[Difference]:
    return [
        Difference(model, _measure(one, row), *paired_interval(other.items[row] - items, seed=seed))
        for row, items in one.items.items()
        if len(items) == len(other.items[row])
    ]


def _measure(result: Result, row: str) -> str:
    return row if row.startswith(result.protocol.split("_")[0]) else f"{result.protocol} {row}"


def _cells(found: Sequence[Result]) -> dict[Line, str]:
    """The first metric of every row."""
    return {
        Line(_measure(result, row), result.fingerprint): result.cell(row, next(iter(scores)))
        for result in found
        for row, scores in result.scores.items()
    }


def _sets(data: Any, val: Any, settings: CompareSettings) -> tuple[Any, Any, list[str]]:
    if val is not None:
        return data, val, []
    images: Images = open_images(data)
    train, test = stratified(images, settings.test_share, settings.seed)
    note = f"no --val: tested on {len(test):,} images, {settings.test_share:.0%} of each class of --data"
    return train, test, [note]


def _common_size(models: Sequence[Any], names: Sequence[str], settings: CompareSettings) -> tuple[int, list[str]]:
    """One side for all models, since scores at different sizes cannot stand in one column."""
    opened = [open_model(model) for model in models]
    size = settings.size or max(model.image_size for model in opened)
    for model in opened:
        model.encoder.check_size(size)
    own = {name: model.image_size for name, model in zip(names, opened, strict=True) if model.image_size != size}
    if not own or settings.size:
        return size, []
    different = ", ".join(f"{name} {side} px" for name, side in own.items())
    return size, [f"all models see {size} px; trained at another size: {different}; --size chooses"]
