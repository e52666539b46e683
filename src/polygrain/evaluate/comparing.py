"""Several models under the same protocols: did it help?"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from polygrain.data.part import stratified
from polygrain.data.sources import Images, open_images
from polygrain.evaluate.models import Model, open_model
from polygrain.evaluate.result import Result, aligned
from polygrain.evaluate.settings.comparing import CompareSettings
from polygrain.evaluate.suites import SUITES, Sets

TEST_SHARE = 0.2


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


def compare(
    models: Sequence[Any], data: Any, val: Any = None, split: str | None = None, settings: CompareSettings | None = None
) -> Comparison:
    """Runs the protocols of a suite on every model, on the same images.

    Args:
        models: what `open_model` takes; the first is what the others are compared with.
        data: labelled images; `val`: those to test on, by default a share of each class of `data`. For segmentation,
            images with masks, split by `val` or by the lists of `split`, see `open_train_and_val`.

    Raises:
        ValueError: for fewer than two models, or when something handed in cannot be used.
    """
    settings = settings or CompareSettings()
    names = [model if isinstance(model, str) else f"model {i}" for i, model in enumerate(models, 1)]
    if len(set(names)) < 2 or len(set(names)) < len(names):
        raise ValueError(f"{len(names)} models named {', '.join(names) or '-'}; give two or more, each once")
    sets, notes = _sets(data, val, split, settings)
    opened = [open_model(model) for model in models]
    size, told = _common_size(opened, names, settings)
    _check_enough(sets, opened[0].encoder.channels, settings)
    del opened  # each run opens its own
    shared = dataclasses.asdict(settings) | {"size": size}
    results = {
        name: [run(model, sets, shared) for run in SUITES[settings.suite].runs]
        for name, model in zip(names, models, strict=True)
    }
    differences: list[Difference] = []
    for name in names[1:]:
        for one, other in zip(results[names[0]], results[name], strict=True):
            differences += _differences(name, one, other, settings.seed)
            told += [f"{name} against {names[0]}, {line}" for line in not_paired(one, other)]
    return Comparison(results=results, differences=differences, notes=(*notes, *told))


def _differences(model: str, one: Result, other: Result, seed: int) -> list[Difference]:
    return [
        Difference(model, _measure(one, row), *other.items[row].gain(sample, seed=seed))
        for row, sample in one.items.items()
        if row in other.items and _why_not(one, other, row) is None
    ]


def not_paired(one: Result, other: Result) -> list[str]:
    """Of each measure that both have and that has no verdict, why not."""
    reasons = {_measure(one, row): _why_not(one, other, row) for row in one.items if row in other.items}
    return [f"{measure}: no verdict, {reason}" for measure, reason in reasons.items() if reason is not None]


def _why_not(one: Result, other: Result, row: str) -> str | None:
    if one.fingerprint_of(row) != other.fingerprint_of(row):
        return "the protocols differ in " + ", ".join(_apart(other.facts_of(row), one.facts_of(row)))
    counts = [len(result.items[row].values) for result in (other, one)]
    return None if counts[0] == counts[1] else f"they were measured on {counts[0]:,} and {counts[1]:,} items"


def _apart(one: Any, other: Any, path: str = "") -> list[str]:
    """The facts in which two differ, with both values."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        keys = dict.fromkeys([*one, *other])
        return [told for key in keys for told in _apart(one.get(key), other.get(key), f"{path}.{key}".lstrip("."))]
    return [] if one == other else [f"{path} ({one} against {other})"]


def _measure(result: Result, row: str) -> str:
    return row if row.startswith(result.protocol.split("_")[0]) else f"{result.protocol} {row}"


def _cells(found: Sequence[Result]) -> dict[Line, str]:
    """The first metric of every row."""
    return {
        Line(_measure(result, row), result.fingerprint_of(row)): _cell(result, row)
        for result in found
        for row, scores in result.scores.items()
    }


def _cell(result: Result, row: str) -> str:
    """The first metric of a row, and its chance where that is not zero: of all metrics, or of that one alone."""
    metric = next(iter(result.scores[row]))
    names = ("chance", f"chance@{metric.partition('@')[2]}")
    chance = [f" (chance {result.scores[row][name]:.1%})" for name in names if result.scores[row].get(name)]
    return "".join([result.cell(row, metric), *chance])


def _sets(data: Any, val: Any, split: str | None, settings: CompareSettings) -> tuple[Sets, list[str]]:
    if settings.suite == "segmentation":
        return Sets(data, val, split), []
    if split is not None:
        raise ValueError(f"split is {split!r}, which the suite {settings.suite} does not take; give --val")
    if val is not None:
        if settings.test_share is not None:
            raise ValueError(
                f"test_share is {settings.test_share}, and --val has the images to test on; give one of them"
            )
        return Sets(data, val), []
    images: Images = open_images(data)
    share = TEST_SHARE if settings.test_share is None else settings.test_share
    train, test = stratified(images, share, settings.seed)
    note = f"no --val: tested on {len(test):,} images, {share:.0%} of each class of --data"
    return Sets(train, test), [note]


def _check_enough(sets: Sets, channels: int, settings: CompareSettings) -> None:
    """Before hours of work: whether there are as many images to test on as the last protocol needs.

    Raises:
        ValueError: when there are fewer.
    """
    least = SUITES[settings.suite].least
    if least > 1 and (count := len(open_images(sets.test, channels))) < least:
        mend = "a larger --test-share, --val with more images, or the suite quick"
        raise ValueError(f"{count} images to test on, and the suite {settings.suite} needs {least} or more; use {mend}")


def _common_size(opened: Sequence[Model], names: Sequence[str], settings: CompareSettings) -> tuple[int, list[str]]:
    """One side for all models, since scores at different sizes cannot stand in one column."""
    sides = {name: SUITES[settings.suite].size_of(model) for name, model in zip(names, opened, strict=True)}
    size = settings.size or max(sides.values())
    if settings.suite != "segmentation":  # which fills images up to whole patches
        for model in opened:
            model.encoder.check_size(size)
    own = {name: side for name, side in sides.items() if side != size}
    if not own or settings.size:
        return size, []
    different = ", ".join(f"{name} {side} px" for name, side in own.items())
    return size, [f"all models see {size} px; the usual size of others: {different}; --size chooses"]
