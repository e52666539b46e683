"""Polygons that things are made of.

A thing has its own coordinates: x to the right, y down, everything about within [-1, 1].
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float32]  # (n, 2) x, y of a polygon
Random = np.random.Generator

# colours of a thing; each instance has its own of each
BODY, SECOND, ACCENT, DARK, LIGHT, GLASS = range(6)

ANGLES = np.arange(24, dtype=np.float32) * (2 * math.pi / 24)
CIRCLE = np.stack([np.cos(ANGLES), np.sin(ANGLES)], 1)


class Part(NamedTuple):
    """A polygon with a colour; later parts cover earlier ones."""

    points: Points
    colour: int
    patterned: bool = False
    gloss: float = 0.5  # how round it looks under the light, 0 flat


def ellipse(x: float, y: float, rx: float, ry: float, turn: float = 0.0) -> Points:
    """`turn` in radians, clockwise as seen."""
    sine, cosine = math.sin(turn), math.cos(turn)
    axes = np.array([[rx * cosine, rx * sine], [-ry * sine, ry * cosine]], np.float32)
    return CIRCLE @ axes + np.array([x, y], np.float32)


def box(left: float, top: float, right: float, bottom: float, *, taper: float = 0.0, corner: float = 0.0) -> Points:
    """`taper`: how much narrower the top is on each side; `corner`: cut off the corners."""
    if corner == 0:
        return polygon((left + taper, top), (right - taper, top), (right, bottom), (left, bottom))
    return polygon(
        (left + taper + corner, top),
        (right - taper - corner, top),
        (right - taper, top + corner),
        (right, bottom - corner),
        (right - corner, bottom),
        (left + corner, bottom),
        (left, bottom - corner),
        (left + taper, top + corner),
    )


def polygon(*points: tuple[float, float]) -> Points:
    return np.array(points, np.float32)


def arc(x: float, y: float, rx: float, ry: float, start: float, end: float, thick: float) -> Points:
    """A bent band around an ellipse from angle `start` to `end`, in radians, clockwise from the right."""
    angle = np.linspace(start, end, 12, dtype=np.float32)
    rim = np.stack([np.cos(angle), np.sin(angle)], 1)
    outer, inner = rim * (rx + thick / 2, ry + thick / 2), rim * (rx - thick / 2, ry - thick / 2)
    return (np.concatenate([outer, inner[::-1]]) + np.array([x, y])).astype(np.float32)


def profile(rows: Sequence[tuple[float, float]]) -> Points:
    """A turned shape from its half widths: (y, half width), smoothed."""
    y, half = np.array(rows, np.float32).T
    fine = np.linspace(0, len(rows) - 1, 20, dtype=np.float32)
    index = np.arange(len(rows))
    ys, widths = np.interp(fine, index, y), np.interp(fine, index, half)
    widths[1:-1] = (widths[:-2] + 2 * widths[1:-1] + widths[2:]) / 4
    right = np.stack([widths, ys], 1)
    return np.concatenate([right, (right * (-1, 1))[::-1]]).astype(np.float32)
