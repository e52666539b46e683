"""What an evaluation found, and under which protocol: a table for people, JSON for machines."""

import dataclasses
import json
import platform
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from polygrain.evaluate.metrics import Scores

PACKAGES = ("polygrain", "torch", "torchvision", "timm", "numpy", "pillow")
HEADINGS = {"top1": "top-1", "top5": "top-5", "per_class": "class mean", "miou": "mIoU", "pixel_accuracy": "pixels"}


@dataclass(frozen=True, kw_only=True)
class Result:
    """Scores, and everything somebody needs to get them again.

    Args:
        protocol: its short name, such as "knn".
        description: the protocol in words.
        scores: shares in [0, 1] by row ("k=20") and metric ("top1"; "top1_low" and "top1_high" bound its interval).
        facts: the protocol in fields: data, counts, preprocessing, model, settings, versions ...
        notes: what a reader must know about this one evaluation.
    """

    protocol: str
    description: str
    scores: Mapping[str, Scores]
    facts: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    def json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2, allow_nan=False)

    def table(self) -> str:
        """Scores in per cent, then the protocol in words."""
        lines = [*textwrap.wrap(self.description, 100), "", *_aligned(self._rows()), ""]
        facts = self.facts
        size = f"{facts['n_val']:,} images of {facts['classes']} classes (chance {facts['chance']:.1%})"
        lines.append(f"{facts['model']['name']} on {facts['val']}: {size}; features of {facts['n_train']:,} images")
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])

    def _rows(self) -> list[list[str]]:
        metrics = [name for name in HEADINGS if any(name in row for row in self.scores.values())]
        others = [n for row in self.scores.values() for n in row if n not in HEADINGS and not n.endswith(BOUNDS)]
        metrics += dict.fromkeys(others)
        body = [[name, *(_cell(row, metric) for metric in metrics)] for name, row in self.scores.items()]
        return [["", *(HEADINGS.get(metric, metric.replace("_", " ")) for metric in metrics)], *body]


BOUNDS = ("_low", "_high")


def _cell(row: Scores, metric: str) -> str:
    if metric not in row:
        return ""
    value = f"{row[metric]:.2%}"
    if f"{metric}_low" in row:
        value += f" [{100 * row[f'{metric}_low']:.1f}, {100 * row[f'{metric}_high']:.1f}]"
    return value


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{package: version(package) for package in PACKAGES}}
