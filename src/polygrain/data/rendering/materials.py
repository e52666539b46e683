"""What things are made of: scales, feathers, bricks ... patterns over a thing's own coordinates.

A material is a function of x and y, in units of about one repeat, to whether the second colour is there.
The kind of a thing decides its material, as it does in the world; pace, tilt, strength and colours are the instance's.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.floating[Any]]  # float32 where it matters for speed
Mask = NDArray[np.bool_]
Material = Callable[[Field, Field], Mask]


def _rest(x: Field) -> Field:
    """What is above the last whole number; np.mod is several times slower."""
    return x - np.floor(x)


def _wave(x: Field) -> Field:
    """0..1 and back within one unit."""
    return np.abs(2 * _rest(x) - 1)


def _odd(row: Field) -> Field:
    """0 for even whole numbers, 1 for odd ones."""
    return 2 * _rest(0.5 * row)


def scales(x: Field, y: Field) -> Mask:
    """Rims of overlapping discs."""
    row = np.floor(y)
    across = 2 * _rest(x + 0.5 * _odd(row)) - 1
    reach = across * across + (y - row) ** 2
    return (reach > 0.55) & (reach < 1.15)


def feathers(x: Field, y: Field) -> Mask:
    """Short strokes in rows, every other row moved by half."""
    row = np.floor(y)
    return (_wave(1.4 * x + 0.5 * _odd(row)) < 0.42) & (y - row < 0.7)


def fur(x: Field, y: Field) -> Mask:
    """Patches with ragged borders."""
    return np.sin(2.2 * x + 1.7 * np.sin(2.6 * y) + 0.8 * np.sin(5 * x)) > 0.3


def slats(x: Field, y: Field) -> Mask:
    return _wave(x) < 0.4


def rings(x: Field, y: Field) -> Mask:
    return _wave(y) < 0.4


def needles(x: Field, y: Field) -> Mask:
    """Strokes that hang to both sides."""
    return _wave(1.2 * x + 1.2 * np.abs(_wave(0.5 * y) - 0.5)) < 0.4


def leaves(x: Field, y: Field) -> Mask:
    """Blots."""
    return np.sin(3.9 * x + 1.9 * np.sin(3.1 * y)) * np.sin(4.3 * y + 1.6 * np.sin(2.7 * x)) > 0.15


def bricks(x: Field, y: Field) -> Mask:
    row = np.floor(1.6 * y)
    return (_rest(1.6 * y) < 0.3) | (_rest(0.8 * x + 0.5 * _odd(row)) < 0.2)


def blocks(x: Field, y: Field) -> Mask:
    """Large stones of two tones."""
    row = np.floor(0.9 * y)
    return _odd(np.floor(0.7 * x + 0.5 * _odd(row)) + row) > 0.5


def panels(x: Field, y: Field) -> Mask:
    """Upright plates with narrow joints."""
    return (_rest(1.2 * x) < 0.25) | (_rest(0.45 * y) < 0.15)


def veins(x: Field, y: Field) -> Mask:
    """Thin lines that cross aslant."""
    return (_wave(x + 0.6 * y) < 0.22) | (_wave(x - 0.6 * y) < 0.22)


def dots(x: Field, y: Field) -> Mask:
    return (_wave(x) - 0.5) ** 2 + (_wave(y) - 0.5) ** 2 < 0.07


def checks(x: Field, y: Field) -> Mask:
    return _odd(np.floor(x) + np.floor(y)) > 0.5


def zigzag(x: Field, y: Field) -> Mask:
    return _wave(y + 0.7 * _wave(x)) < 0.42


def glaze(x: Field, y: Field) -> Mask:
    """A broad reflection."""
    return _wave(0.3 * x + 0.2 * y) < 0.4
