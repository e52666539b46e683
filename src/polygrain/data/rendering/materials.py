"""What things are made of: scales, feathers, bricks ... patterns over a thing's own coordinates.

A material is a function of x and y, in units of about one repeat, to how much of the second colour is there (0..1).
The kind of a thing decides its material, as it does in the world; pace, tilt, strength and colours are the instance's.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.floating[Any]]  # float32 where it matters for speed
Material = Callable[[Field, Field], Field]


def _wave(x: Field) -> Field:
    """0..1 and back within one unit."""
    return np.abs(2 * np.mod(x, 1) - 1)


def scales(x: Field, y: Field) -> Field:
    """Rims of overlapping discs."""
    row = np.floor(y)
    across = 2 * np.mod(x + 0.5 * np.mod(row, 2), 1) - 1
    reach = across * across + (y - row) ** 2
    return ((reach > 0.55) & (reach < 1.15)).astype(np.float32)


def feathers(x: Field, y: Field) -> Field:
    """Short strokes in rows, every other row moved by half."""
    row = np.floor(y)
    return ((_wave(1.4 * x + 0.5 * np.mod(row, 2)) < 0.42) & (y - row < 0.7)).astype(np.float32)


def fur(x: Field, y: Field) -> Field:
    """Patches with ragged borders."""
    return (np.sin(2.2 * x + 1.7 * np.sin(2.6 * y) + 0.8 * np.sin(5 * x)) > 0.3).astype(np.float32)


def slats(x: Field, y: Field) -> Field:
    return (_wave(x) < 0.4).astype(np.float32)


def rings(x: Field, y: Field) -> Field:
    return (_wave(y) < 0.4).astype(np.float32)


def needles(x: Field, y: Field) -> Field:
    """Strokes that hang to both sides."""
    return (_wave(1.2 * x + 1.2 * np.abs(_wave(0.5 * y) - 0.5)) < 0.4).astype(np.float32)


def leaves(x: Field, y: Field) -> Field:
    """Blots."""
    return (np.sin(3.9 * x + 1.9 * np.sin(3.1 * y)) * np.sin(4.3 * y + 1.6 * np.sin(2.7 * x)) > 0.15).astype(np.float32)


def bricks(x: Field, y: Field) -> Field:
    row = np.floor(1.6 * y)
    joint = (np.mod(1.6 * y, 1) < 0.3) | (np.mod(0.8 * x + 0.5 * np.mod(row, 2), 1) < 0.2)
    return joint.astype(np.float32)


def blocks(x: Field, y: Field) -> Field:
    """Large stones of two tones."""
    row = np.floor(0.9 * y)
    return np.mod(np.floor(0.7 * x + 0.5 * np.mod(row, 2)) + row, 2).astype(np.float32)


def panels(x: Field, y: Field) -> Field:
    """Upright plates with narrow joints."""
    return ((np.mod(1.2 * x, 1) < 0.25) | (np.mod(0.45 * y, 1) < 0.15)).astype(np.float32)


def veins(x: Field, y: Field) -> Field:
    """Thin lines that cross aslant."""
    return ((_wave(x + 0.6 * y) < 0.22) | (_wave(x - 0.6 * y) < 0.22)).astype(np.float32)


def dots(x: Field, y: Field) -> Field:
    return ((_wave(x) - 0.5) ** 2 + (_wave(y) - 0.5) ** 2 < 0.07).astype(np.float32)


def checks(x: Field, y: Field) -> Field:
    return (np.mod(np.floor(x) + np.floor(y), 2)).astype(np.float32)


def zigzag(x: Field, y: Field) -> Field:
    return (_wave(y + 0.7 * _wave(x)) < 0.42).astype(np.float32)


def glaze(x: Field, y: Field) -> Field:
    """A broad reflection."""
    return np.clip(1.2 - 1.4 * _wave(0.3 * x + 0.2 * y), 0, 1)
