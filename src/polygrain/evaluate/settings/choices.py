"""Checks that several protocols share."""

import difflib
from collections.abc import Collection


def check_one_of(name: str, value: str, known: Collection[str]) -> None:
    """Raises ValueError with the nearest word when a word is not among those known."""
    if value not in known:
        close = difflib.get_close_matches(value, known, n=1)
        meant = f"did you mean {close[0]}? " if close else ""
        raise ValueError(f"{name} is {value!r}; {meant}there are {', '.join(known)}")


def check_held_out(share: float) -> None:
    if not 0 < share < 1:
        raise ValueError(f"held_out is {share}; it must lie between 0 and 1, for example 0.1")


def check_warmup(preset: str, epochs: int, rising: int) -> None:
    """Raises ValueError when a run ends before its learning rate is at its peak."""
    if rising and epochs <= rising:
        raise ValueError(
            f"epochs is {epochs}, and preset {preset} rises to its learning rate in {rising}; "
            "give more epochs, or fewer warmup_epochs"
        )


def check_subset(share: float | None, file: str | None) -> None:
    if share is not None and file is not None:
        raise ValueError("share and list both choose training images; give one of them")
    if share is not None and not 0 < share <= 1:
        raise ValueError(f"share is {share}; it must be above 0 and at most 1, for example 0.01")
