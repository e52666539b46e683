"""Ranges of settings, checked where a person's choices become a dataclass: before any data is touched."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

LARGEST = 1_000_000_000  # a larger count is a slip of the keyboard


class Kind(NamedTuple):
    """What a number may be, in code and in words."""

    fits: Callable[[float], bool]
    wanted: str


SEVERAL = Kind(lambda value: 2 <= value <= LARGEST, f"2 or more, at most {LARGEST:,}")
PIXELS = Kind(lambda value: 1 <= value <= 4096, "1 to 4,096 pixels")
COUNT = Kind(lambda value: 1 <= value <= LARGEST, f"1 or more, at most {LARGEST:,}")
NUMBER = Kind(lambda value: 0 <= value <= LARGEST, f"0 or more, at most {LARGEST:,}")  # of things, epochs ...
POSITIVE = Kind(lambda value: value > 0, "above 0")
NOT_NEGATIVE = Kind(lambda value: value >= 0, "0 or more")
SHARE = Kind(lambda value: 0 <= value <= 1, "between 0 and 1")
PART = Kind(lambda value: 0 < value <= 1, "above 0 and at most 1")


def check_ranges(settings: Any, kinds: dict[Kind, str]) -> None:
    """Checks fields of a dataclass; None passes, in a tuple each number counts, none may be NaN or infinite.

    Args:
        kinds: what the fields of these names, with spaces between, may be; other whole numbers must be 0 or more,
            other numbers finite.

    Raises:
        ValueError: names the field, its value and its bounds.
    """
    kind_of = {name: kind for kind, names in kinds.items() for name in names.split()}
    for field in dataclasses.fields(settings):
        whole = field.type in (int, int | None)
        value, kind = getattr(settings, field.name), kind_of.pop(field.name, NUMBER if whole else None)
        for number in value if isinstance(value, list | tuple) else (value,):
            if isinstance(number, float) and not math.isfinite(number):
                raise ValueError(f"{field.name} is {value}; it must be {kind.wanted if kind else 'a number'}")
            if isinstance(number, float) and whole:
                raise ValueError(f"{field.name} is {value}; it must be a whole number")
            if kind and number is not None and not kind.fits(number):
                raise ValueError(f"{field.name} is {value}; it must be {kind.wanted}")
    assert not kind_of, f"no fields {sorted(kind_of)}"


def check_scale(name: str, scale: tuple[float, float] | None) -> None:
    """Whether two shares of an image's area are its least and its largest.

    Raises:
        ValueError: when they are in the wrong order.
    """
    if scale is not None and scale[0] > scale[1]:
        raise ValueError(f"{name} is {list(scale)}; give the smaller share first")
