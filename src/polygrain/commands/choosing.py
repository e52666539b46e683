"""Names that people type, checked against those there are."""

import difflib
from collections.abc import Collection

from polygrain.evaluate.outputs import check_file


def check_choice(kind: str, name: str, known: Collection[str]) -> None:
    """Raises ValueError, with the nearest name, when there is none like this."""
    if name in known:
        return
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(known)}"
    raise ValueError(f"unknown {kind} {name!r}; {hint}")


def check_folder_of(file: str | None) -> None:
    """Raises ValueError when a file that is to be written at the end cannot be."""
    if file is not None:
        check_file(file)
