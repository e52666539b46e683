"""What became of every tensor when weights of another project were read."""

import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

Fate = Literal["matched", "converted", "left", "anew", "missing", "unknown", "misfit"]
MEANING: dict[Fate, str] = {
    "matched": "copied under its own name",
    "converted": "copied under another name or layout",
    "left": "not needed here",
    "anew": "in no such file; made anew as the run goes on",
    "missing": "needed here, not in the file",
    "unknown": "in the file, in no key table",
    "misfit": "of another shape than needed here",
}
PROBLEMS: tuple[Fate, ...] = ("missing", "unknown", "misfit")


class Row(NamedTuple):
    """One tensor of the file, or one that is missing from it."""

    fate: Fate
    source: str  # its name in the file; empty when missing or made anew
    target: str  # its name here; empty when it has none
    note: str  # shape, or why it was left or is made anew


@dataclass(frozen=True, kw_only=True)
class ImportReport:
    """An account of every tensor in a file and every tensor that was to be filled; prints as a table."""

    source: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        return not any(row.fate in PROBLEMS for row in self.rows)

    def count(self, fate: Fate) -> int:
        return sum(row.fate == fate for row in self.rows)

    def noting(self, note: str) -> "ImportReport":
        return replace(self, notes=(*self.notes, note))

    @property
    def summary(self) -> str:
        counts = ", ".join(f"{self.count(fate)} {fate}" for fate in MEANING)
        return f"{self.source}: {counts}"

    def __str__(self) -> str:
        """The summary, then one line for all rows that differ only in numbers (`blocks.*.norm1.weight`)."""
        alike = Counter(Row(row.fate, _starred(row.source), _starred(row.target), row.note) for row in self.rows)
        lines = [
            f"  {row.fate:<9} {count:>4}  {' -> '.join(filter(None, (row.source, row.target)))}  {row.note}".rstrip()
            for row, count in sorted(alike.items(), key=lambda entry: list(MEANING).index(entry[0].fate))
        ]
        return "\n".join([self.summary, *lines, *(f"  note: {note}" for note in self.notes)])


class IncompleteImport(ValueError):
    """Weights that do not fill a network exactly; `report` says tensor by tensor."""

    def __init__(self, report: ImportReport, mend: str) -> None:
        super().__init__(f"{report.summary}; {mend}\n{report}")
        self.report = report


def _starred(name: str) -> str:
    return re.sub(r"(?<=[./])\d+(?=[./]|$)", "*", name)
