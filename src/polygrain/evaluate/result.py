"""What an evaluation found, and under which protocol: a table for people, JSON for machines."""

import dataclasses
import hashlib
import json
import platform
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from polygrain.evaluate.metrics import Scores
from polygrain.evaluate.sampling import Sample

PACKAGES = ("polygrain", "torch", "torchvision", "timm", "numpy", "pillow")
HEADINGS = {"top1": "top-1", "top5": "top-5", "per_class": "class mean", "miou": "mIoU", "pixel_accuracy": "pixels"}


def fingerprint(protocol: str, facts: Mapping[str, Any]) -> str:
    """Short text that differs where the protocol or what decides its numbers does."""
    fields = json.dumps([protocol, facts], sort_keys=True, allow_nan=False)
    return hashlib.sha256(fields.encode()).hexdigest()[:12]


@dataclass(frozen=True, kw_only=True)
class Result:
    """Scores, and everything somebody needs to get them again.

    Args:
        protocol: its short name, such as "knn".
        description: the protocol in words.
        scores: numbers by row ("k=20") and metric ("top1"; "top1_low" and "top1_high" bound its interval): shares in
            [0, 1], shown in per cent, unless `plain` names the metric.
        facts: all that decides the numbers besides the model: data, counts, preprocessing, settings ... Two results
            may stand in one column only if they agree in these, which is what `fingerprint` says.
        model: which one it was: name, digests, dimensions.
        details: all else: paths, versions, what was chosen on the way, seconds.
        notes: what a reader must know about this one evaluation.
        plain: metrics that are no shares.
        about: one line under the table: what the scores are of.
        row_facts: by row, what decides its numbers besides `facts`, where not the same for all rows: the grid of a
            model's patches decides how hard it is to find a patch, and nothing about whole images.
        items: by row, the sample its first metric comes from: what two models can be compared by in pairs. Not written
            to JSON.
    """

    protocol: str
    description: str
    scores: Mapping[str, Scores]
    facts: Mapping[str, Any]
    model: Mapping[str, Any]
    details: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    plain: tuple[str, ...] = ()
    about: str = ""
    row_facts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    items: Mapping[str, Sample] = field(default_factory=dict, repr=False, compare=False)

    @property
    def fingerprint(self) -> str:
        """Short text that differs where the protocol or the data do: never put two of them in one column."""
        return fingerprint(self.protocol, self.facts)

    def fingerprint_of(self, row: str) -> str:
        """That of one row, which has more facts or none."""
        return fingerprint(self.protocol, self.facts_of(row))

    def facts_of(self, row: str) -> dict[str, Any]:
        return {**self.facts, **self.row_facts.get(row, {})}

    def json(self) -> str:
        own = {row: self.fingerprint_of(row) for row in self.row_facts}
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "items"}
        told = {"fingerprint": self.fingerprint, "row_fingerprints": own, **fields}
        return json.dumps(told, indent=2, allow_nan=False)

    def table(self) -> str:
        """The protocol in words, then the scores."""
        lines = [*textwrap.wrap(self.description, 100), "", *aligned(self._rows()), ""]
        about = [self.about] if self.about else []
        own: dict[str, dict[str, None]] = {}
        for row in self.row_facts:  # "region: patch finds its place" is a row of region
            own.setdefault(self.fingerprint_of(row), {})[row.partition(":")[0]] = None
        about.append(f"protocol {self.fingerprint}")
        about += [f"protocol {digest} of {' and '.join(rows)}" for digest, rows in own.items()]
        return "\n".join([*lines, *about, *(f"note: {note}" for note in self.notes)])

    def cell(self, row: str, metric: str) -> str:
        """One score as the table shows it."""
        return _cell(self.scores[row], metric, metric in self.plain)

    def _rows(self) -> list[list[str]]:
        metrics = [name for name in HEADINGS if any(name in row for row in self.scores.values())]
        others = [n for row in self.scores.values() for n in row if n not in HEADINGS and not n.endswith(BOUNDS)]
        metrics += dict.fromkeys(others)
        body = [
            [name, *(_cell(row, metric, metric in self.plain) for metric in metrics)]
            for name, row in self.scores.items()
        ]
        return [["", *(HEADINGS.get(metric, metric.replace("_", " ")) for metric in metrics)], *body]


BOUNDS = ("_low", "_high")


def _cell(row: Scores, metric: str, plain: bool) -> str:
    if metric not in row:
        return ""
    show = "{:.4g}" if plain else "{:.2%}"
    value = show.format(row[metric])
    if f"{metric}_low" in row:
        low, high = (row[metric + bound] * (1 if plain else 100) for bound in BOUNDS)
        value += f" [{low:.4g}, {high:.4g}]" if plain else f" [{low:.1f}, {high:.1f}]"
    return value


def aligned(rows: list[list[str]]) -> list[str]:
    """Lines in which the columns stand under each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{package: version(package) for package in PACKAGES}}
