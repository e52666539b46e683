"""The course of a run, out of its log."""

import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

from polygrain.report.figures import line_chart
from polygrain.report.html import Section

Record = Mapping[str, float | int | str]
Line = tuple[list[float], list[float]]  # steps, values


class Log(NamedTuple):
    """What a run wrote down."""

    records: list[Record]
    torn: bool  # whether the last line is half written, and left out


def read_log(path: Path) -> Log:
    """The records of a run's log.jsonl.

    Raises:
        ValueError: when a line is no record; a last one without an end is what a run leaves that was killed.
    """
    *lines, rest = path.read_bytes().split(b"\n")
    records = [_record(line, f"{path}, line {i}") for i, line in enumerate(lines, 1) if line.strip()]
    return Log(records, bool(rest.strip()))


def _record(line: bytes, where: str) -> Record:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{where} is no JSON: {error}") from error
    if not isinstance(record, dict) or not isinstance(record.get("step"), int | float):
        raise ValueError(f'{where} has no step; a log has a record a line, as in {{"step": 1, "loss": 2.5}}')
    return record


HEADINGS = {
    "": "Loss and its terms",
    "probe": "Online probe",
    "features": "Features of the exported network",
    "gauges": "Inside the objectives",
    "loop": "Schedules and speed",
}


def curves(records: Sequence[Record], *, title: str = "How it went", about: str = "") -> Section:
    """Every number of a run's log against the optimizer step: the loss, its terms, gauges, then schedules and speed."""
    groups: dict[str, dict[str, dict[str, Line]]] = {group: {} for group in HEADINGS}
    series = _series(records)
    last_step = max((steps[-1] for steps, _ in series.values()), default=1.0)
    for name, line in sorted(series.items(), key=lambda item: item[0] != "loss"):  # the loss first
        group, panel, kind = _place(name)
        groups[group].setdefault(panel, {})[kind] = line
    body = ""
    for group, panels in groups.items():
        if panels:
            figures = "".join(_panel(name, lines, last_step) for name, lines in panels.items())
            body += f"<h3>{HEADINGS[group]}</h3><div class=panels>{figures}</div>"
    return Section(title, about, body)


def _place(name: str) -> tuple[str, str, str]:
    """Group, panel and line of a key of the log; pooled and patch vectors share a panel."""
    prefix, slash, rest = name.partition("/")
    if prefix == "features":
        kind, _, gauge = rest.partition("_")
        return prefix, gauge.replace("_", " "), kind
    if slash:
        return (prefix, rest, "") if prefix in HEADINGS else ("", name, "")
    return ("" if name == "loss" else "loop"), name, ""


def _series(records: Sequence[Record]) -> dict[str, Line]:
    """By key, the finite numbers of the log and their steps; of a step that a resumed run took again, the newer one."""
    series: dict[str, dict[float, float]] = {}
    for record in records:
        for name, value in record.items():
            if name not in ("step", "epoch") and isinstance(value, int | float) and math.isfinite(value):
                series.setdefault(name, {})[float(record["step"])] = float(value)
    return {name: (sorted(points), [points[step] for step in sorted(points)]) for name, points in series.items()}


def _panel(name: str, lines: Mapping[str, Line], last_step: float) -> str:
    ends = [f"{kind} {values[-1]:.3g}".strip() for kind, (_, values) in lines.items()]
    if len(ends) > 1:
        ends = [f"<b class=line-{i}>{escape(end)}</b>" for i, end in enumerate(ends, 1)]
    told = escape(name)
    return (
        f"<figure class=panel><figcaption><span title='{told}'>{told}</span><span>{' '.join(ends)}</span></figcaption>"
        f"{line_chart(lines, last_step=last_step)}</figure>"
    )
