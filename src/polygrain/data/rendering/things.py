"""The fifteen kinds of things in the rendered scenes, as parts made of polygons.

A thing is drawn in its own coordinates: x to the right, y down, everything about within [-1, 1]. Proportions are drawn
anew for each instance; what the members of a family share are parts: eyes and a patterned body, wheels and glass,
stems and leaves, lit windows in walls, glazed rounds with bands.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float32]  # (n, 2) x, y of a polygon
Random = np.random.Generator

# colours of a thing; each instance has its own of each
BODY, SECOND, ACCENT, DARK, LIGHT, GLASS = range(6)


class Part(NamedTuple):
    """A polygon with a colour; later parts cover earlier ones."""

    points: Points
    colour: int
    patterned: bool = False
    gloss: float = 0.5  # how round it looks under the light, 0 flat


def ellipse(x: float, y: float, rx: float, ry: float, turn: float = 0.0) -> Points:
    """`turn` in radians, clockwise as seen."""
    angle = np.linspace(0, 2 * math.pi, 24, endpoint=False, dtype=np.float32)
    return _turned(np.stack([rx * np.cos(angle), ry * np.sin(angle)], 1), x, y, turn)


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
    return (np.concatenate([outer, inner[::-1]]) + (x, y)).astype(np.float32)


def profile(rows: Sequence[tuple[float, float]]) -> Points:
    """A turned shape from its half widths: (y, half width), smoothed."""
    y, half = np.array(rows, np.float32).T
    fine = np.linspace(0, len(rows) - 1, 20, dtype=np.float32)
    index = np.arange(len(rows))
    ys, widths = np.interp(fine, index, y), np.interp(fine, index, half)
    widths[1:-1] = (widths[:-2] + 2 * widths[1:-1] + widths[2:]) / 4
    right = np.stack([widths, ys], 1)
    return np.concatenate([right, (right * (-1, 1))[::-1]]).astype(np.float32)


def _turned(points: Points, x: float, y: float, turn: float) -> Points:
    sine, cosine = math.sin(turn), math.cos(turn)
    return (points @ np.array([[cosine, sine], [-sine, cosine]]) + (x, y)).astype(np.float32)


def _eye(x: float, y: float, radius: float) -> list[Part]:
    return [
        Part(ellipse(x, y, radius, radius), LIGHT, gloss=0.2),
        Part(ellipse(x + 0.25 * radius, y, 0.6 * radius, 0.6 * radius), DARK, gloss=0),
        Part(ellipse(x + 0.45 * radius, y - 0.3 * radius, 0.2 * radius, 0.2 * radius), LIGHT, gloss=0),
    ]


def fish(random: Random) -> list[Part]:
    tall, tail, fin = random.uniform(0.34, 0.56), random.uniform(0.3, 0.55), random.uniform(0.2, 0.4)
    notch = random.uniform(0.0, 0.2)
    return [
        Part(polygon((-0.5, 0), (-0.98, -tail), (-0.98 + notch, 0), (-0.98, tail)), SECOND),
        Part(polygon((-0.3, -0.8 * tall), (0.0, -tall - fin), (-0.38, -tall - 0.7 * fin)), SECOND),
        Part(polygon((-0.2, 0.8 * tall), (-0.1, tall + 0.8 * fin), (-0.4, tall + 0.6 * fin)), SECOND),
        Part(ellipse(0.14, 0, 0.78, tall), BODY, patterned=True, gloss=0.8),
        Part(arc(0.3, 0, 0.12, 0.7 * tall, -1.2, 1.2, 0.06), DARK, gloss=0),
        Part(ellipse(0.1, 0.3 * tall, 0.2, 0.1, 0.4), SECOND),
        Part(polygon((0.93, 0.12 * tall), (0.7, 0.3 * tall), (0.72, 0.2 * tall)), DARK, gloss=0),
        *_eye(0.6, -0.25 * tall, random.uniform(0.1, 0.15)),
    ]


def bird(random: Random) -> list[Part]:
    plump, head, beak = random.uniform(0.36, 0.5), random.uniform(0.22, 0.3), random.uniform(0.18, 0.4)
    tail, leg = random.uniform(0.3, 0.5), random.uniform(0.25, 0.42)
    foot = 0.1 + plump + leg
    return [
        Part(polygon((-0.35, 0.0), (-0.55 - tail, 0.0), (-0.6 - tail, 0.25), (-0.3, 0.3)), SECOND),
        Part(box(-0.1, 0.3, -0.04, foot), ACCENT, gloss=0),
        Part(box(0.12, 0.3, 0.18, foot), ACCENT, gloss=0),
        Part(polygon((-0.12, foot - 0.06), (0.1, foot), (-0.16, foot)), ACCENT, gloss=0),
        Part(polygon((0.1, foot - 0.06), (0.32, foot), (0.06, foot)), ACCENT, gloss=0),
        Part(polygon((0.6, -0.55), (0.68 + beak, -0.42), (0.6, -0.34)), ACCENT),
        Part(ellipse(0.02, 0.12, 0.62, plump, -0.35), BODY, patterned=True, gloss=0.8),
        Part(ellipse(0.45, -0.45, head, head), BODY, gloss=0.7),
        Part(ellipse(-0.12, 0.1, 0.4, 0.22, 0.35), SECOND, gloss=0.6),
        Part(ellipse(-0.24, 0.18, 0.3, 0.12, 0.35), DARK, gloss=0.4),
        *_eye(0.5, -0.5, 0.42 * head),
    ]


def rabbit(random: Random) -> list[Part]:
    ear, lean, plump = random.uniform(0.4, 0.62), random.uniform(0.0, 0.5), random.uniform(0.42, 0.54)
    return [
        Part(ellipse(-0.72, 0.45, 0.16, 0.16), LIGHT, gloss=0.6),
        Part(ellipse(0.3 - 0.3 * lean, -0.6, 0.11, ear, -0.3 - lean), SECOND),
        Part(ellipse(-0.2, 0.35, 0.56, plump), BODY, patterned=True, gloss=0.8),
        Part(ellipse(-0.3, 0.55, 0.3, 0.28), BODY, patterned=True, gloss=0.8),
        Part(ellipse(-0.2, 0.86, 0.36, 0.11), SECOND),
        Part(ellipse(0.3, 0.82, 0.22, 0.1), SECOND),
        Part(ellipse(0.5 - 0.2 * lean, -0.62, 0.12, ear, 0.12 - lean), BODY, gloss=0.6),
        Part(ellipse(0.5 - 0.2 * lean, -0.6, 0.05, 0.75 * ear, 0.12 - lean), ACCENT, gloss=0.2),
        Part(ellipse(0.45, -0.08, 0.34, 0.29, 0.15), BODY, gloss=0.8),
        Part(ellipse(0.78, -0.05, 0.06, 0.05), DARK, gloss=0),
        *_eye(0.52, -0.16, random.uniform(0.09, 0.13)),
    ]


def _wheel(x: float, y: float, radius: float) -> list[Part]:
    return [
        Part(ellipse(x, y, radius, radius), DARK, gloss=0.3),
        Part(ellipse(x, y, 0.55 * radius, 0.55 * radius), LIGHT, gloss=0.7),
        Part(ellipse(x, y, 0.2 * radius, 0.2 * radius), DARK, gloss=0),
    ]


def car(random: Random) -> list[Part]:
    roof, slope, wheel = random.uniform(0.36, 0.5), random.uniform(0.12, 0.34), random.uniform(0.2, 0.26)
    left, right = random.uniform(-0.7, -0.45), random.uniform(0.35, 0.6)
    middle = (left + right) / 2
    return [
        Part(box(left, -roof, right, 0.1, taper=slope), BODY, gloss=0.6),
        Part(polygon((left + 0.14, 0.0), (left + slope + 0.06, 0.08 - roof), (middle - 0.04, 0.08 - roof), (middle - 0.04, 0.0)), GLASS),
        Part(polygon((middle + 0.04, 0.0), (middle + 0.04, 0.08 - roof), (right - slope - 0.06, 0.08 - roof), (right - 0.14, 0.0)), GLASS),
        Part(box(-0.97, -0.02, 0.97, 0.44, corner=0.1), BODY, patterned=True, gloss=0.7),
        Part(box(-0.97, 0.28, 0.97, 0.4, corner=0.02), SECOND, gloss=0.3),
        Part(ellipse(0.9, 0.14, 0.07, 0.08), LIGHT),
        Part(box(-0.97, 0.08, -0.88, 0.2), ACCENT, gloss=0),
        Part(box(middle + 0.02, 0.1, middle + 0.16, 0.14), DARK, gloss=0),
        *_wheel(-0.55, 0.45, wheel),
        *_wheel(0.55, 0.45, wheel),
    ]  # fmt: skip


def bus(random: Random) -> list[Part]:
    top, count, wheel = random.uniform(-0.75, -0.55), int(random.integers(3, 6)), random.uniform(0.15, 0.2)
    step = 1.36 / count
    deep = random.uniform(0.3, 0.42)
    windows = [
        Part(box(-0.86 + k * step, top + 0.14, -0.86 + (k + 0.78) * step, top + 0.14 + deep), GLASS)
        for k in range(count)
    ]
    return [
        Part(box(-0.97, top, 0.97, 0.55, corner=0.1), BODY, patterned=True, gloss=0.6),
        Part(box(-0.97, top + 0.08, 0.97, top + 0.2 + deep), SECOND, gloss=0.4),
        *windows,
        Part(box(0.6, top + 0.16, 0.88, 0.5), LIGHT, gloss=0.2),
        Part(box(0.64, top + 0.2, 0.84, 0.46), GLASS),
        Part(box(-0.97, 0.4, 0.97, 0.47), ACCENT, gloss=0),
        *_wheel(-0.55, 0.55, wheel),
        *_wheel(0.35, 0.55, wheel),
    ]


def tractor(random: Random) -> list[Part]:
    big, small, pipe = random.uniform(0.42, 0.52), random.uniform(0.22, 0.28), random.uniform(0.3, 0.5)
    cabin = random.uniform(0.7, 0.85)
    return [
        Part(box(0.5, -0.1 - pipe, 0.58, 0.0), DARK, gloss=0.2),
        Part(box(-0.72, -cabin, 0.1, 0.2, taper=0.06), SECOND),
        Part(box(-0.78, -cabin - 0.08, 0.14, -cabin + 0.02), ACCENT),
        Part(box(-0.58, 0.12 - cabin, -0.02, -0.12, taper=0.04), GLASS),
        Part(box(-0.6, -0.08, 0.92, 0.4, corner=0.08), BODY, patterned=True, gloss=0.7),
        Part(box(0.82, 0.0, 0.94, 0.3), LIGHT, gloss=0.2),
        Part(box(0.15, 0.0, 0.68, 0.05), DARK, gloss=0),
        *_wheel(-0.42, 0.85 - big, big),
        *_wheel(0.62, 0.85 - small, small),
    ]


def pine(random: Random) -> list[Part]:
    tiers, wide = int(random.integers(3, 6)), random.uniform(0.5, 0.75)
    parts = [Part(box(-0.1, 0.5, 0.1, 0.97), ACCENT)]
    for k in range(tiers):
        top = 0.3 - (k + 1) * 1.25 / tiers
        half = wide * (1 - 0.75 * k / tiers)
        bottom = 0.62 - k * 1.25 / tiers
        teeth = 7
        edge = [(half * (1 - 2 * t / teeth), bottom + (0.09 if t % 2 else 0.0)) for t in range(teeth + 1)]
        parts.append(Part(polygon((0, max(-1.0, top)), *edge), (BODY, SECOND)[k % 2], patterned=True, gloss=0.8))
    return parts


def tree(random: Random) -> list[Part]:
    blobs, trunk = int(random.integers(5, 9)), random.uniform(0.08, 0.14)
    parts = [
        Part(box(-1.4 * trunk, 0.0, 1.4 * trunk, 0.97, taper=0.5 * trunk), ACCENT),
        Part(polygon((0, 0.5), (0.4, 0.0), (0.46, 0.04), (0.05, 0.62)), ACCENT),
    ]
    for k in range(blobs):
        angle = 2 * math.pi * k / blobs + random.uniform(-0.2, 0.2)
        x, y, radius = 0.45 * math.cos(angle), -0.36 + 0.32 * math.sin(angle), random.uniform(0.26, 0.4)
        parts.append(Part(ellipse(x, y, radius, 0.9 * radius), (BODY, SECOND)[k % 2], patterned=True, gloss=1.0))
    parts.append(Part(ellipse(0, -0.36, 0.36, 0.34), BODY, patterned=True, gloss=1.0))
    for _ in range(int(random.integers(0, 7))):
        x, y = random.uniform(-0.5, 0.5), random.uniform(-0.75, 0.0)
        parts.append(Part(ellipse(x, y, 0.07, 0.07), ACCENT, gloss=0.8))
    return parts


def flower(random: Random) -> list[Part]:
    petals, long, heart = int(random.integers(5, 11)), random.uniform(0.26, 0.36), random.uniform(0.14, 0.24)
    wide, sway = random.uniform(0.1, 0.2), random.uniform(-0.15, 0.15)
    leaf = random.uniform(0.24, 0.4)
    parts = [
        Part(polygon((-0.04, -0.35), (0.04, -0.35), (0.05 + sway, 0.3), (0.06, 0.97), (-0.05, 0.97), (-0.04 + sway, 0.3)), SECOND),
        Part(ellipse(0.3, 0.55, leaf, 0.12, -0.5), SECOND, patterned=True),
        Part(ellipse(-0.28, 0.7, leaf, 0.12, 0.5), SECOND, patterned=True),
    ]  # fmt: skip
    for k in range(petals):
        angle = 2 * math.pi * k / petals
        x, y = (heart + 0.7 * long) * math.cos(angle), -0.4 + (heart + 0.7 * long) * math.sin(angle)
        parts.append(Part(ellipse(x, y, long, wide, angle), BODY, patterned=True, gloss=0.8))
    parts.append(Part(ellipse(0, -0.4, heart, heart), ACCENT, gloss=0.9))
    return parts


def _window(x: float, y: float, half: float, tall: float) -> list[Part]:
    return [
        Part(box(x - half, y - tall, x + half, y + tall), LIGHT, gloss=0),
        Part(box(x - 0.75 * half, y - 0.8 * tall, x + 0.75 * half, y + 0.8 * tall), GLASS),
        Part(box(x - 0.1 * half, y - tall, x + 0.1 * half, y + tall), LIGHT, gloss=0),
    ]


def house(random: Random) -> list[Part]:
    wide, eaves, ridge = random.uniform(0.6, 0.85), random.uniform(-0.25, 0.0), random.uniform(0.5, 0.75)
    flat, door = random.uniform(0.0, 0.6), random.choice([-0.55, 0.0, 0.55]) * wide
    parts = [
        Part(box(0.35 * wide, eaves - 0.85 * ridge, 0.35 * wide + 0.18, eaves), SECOND),
        Part(box(-wide, eaves, wide, 0.9), BODY, patterned=True, gloss=0.3),
        Part(
            polygon(
                (-wide - 0.12, eaves + 0.04), (-flat * wide, eaves - ridge), (flat * wide, eaves - ridge),
                (wide + 0.12, eaves + 0.04),
            ),
            ACCENT, gloss=0.5,
        ),
        Part(box(door - 0.13, 0.35, door + 0.13, 0.9), SECOND, gloss=0.3),
        Part(ellipse(door + 0.07, 0.64, 0.03, 0.03), LIGHT, gloss=0),
    ]  # fmt: skip
    for x in (-0.55 * wide, 0.0, 0.55 * wide):
        if x != door:
            parts += _window(x, 0.42, 0.15, 0.17)
    return parts


def tower(random: Random) -> list[Part]:
    half, top = random.uniform(0.36, 0.5), random.uniform(-0.8, -0.65)
    columns, rows = int(random.integers(2, 5)), int(random.integers(4, 7))
    parts = [
        Part(box(-0.03, -1.0, 0.03, top), DARK, gloss=0),
        Part(box(-0.5 * half, top - 0.1, 0.5 * half, top + 0.1), SECOND),
        Part(box(-half, top, half, 0.97), BODY, patterned=True, gloss=0.5),
        Part(box(-half - 0.05, top, half + 0.05, top + 0.08), ACCENT),
    ]
    wide, tall = 1.7 * half / columns, (0.78 - top - 0.16) / rows
    for row in range(rows):
        for column in range(columns):
            x, y = -0.85 * half + (column + 0.5) * wide, top + 0.16 + (row + 0.5) * tall
            pane = LIGHT if random.random() < 0.3 else GLASS
            parts.append(Part(box(x - 0.34 * wide, y - 0.3 * tall, x + 0.34 * wide, y + 0.3 * tall), pane, gloss=0.2))
    parts.append(Part(box(-0.12, 0.8, 0.12, 0.97), DARK, gloss=0))
    return parts


def castle(random: Random) -> list[Part]:
    wall, high, slim = random.uniform(-0.1, 0.1), random.uniform(-0.45, -0.25), random.uniform(0.18, 0.25)
    roof = random.uniform(0.4, 0.55)
    parts = [Part(box(-0.7, wall, 0.7, 0.9), BODY, patterned=True, gloss=0.3)]
    for k in range(4):
        parts.append(Part(box(-0.5 + 0.28 * k, wall - 0.13, -0.36 + 0.28 * k, wall + 0.02), BODY, gloss=0.3))
    for x in (-0.72, 0.72):
        parts += [
            Part(box(x - slim, high, x + slim, 0.92), BODY, patterned=True, gloss=0.8),
            Part(polygon((x - slim - 0.07, high + 0.03), (x, high - roof), (x + slim + 0.07, high + 0.03)), ACCENT),
            Part(box(x - 0.06, high + 0.18, x + 0.06, high + 0.42), GLASS),
            Part(box(x - 0.06, high + 0.65, x + 0.06, high + 0.85), GLASS),
        ]
    parts += [
        Part(box(-0.2, 0.45, 0.2, 0.9), SECOND, gloss=0.2),
        Part(ellipse(0, 0.46, 0.2, 0.2), SECOND, gloss=0.2),
        Part(box(-0.03, wall - 0.55, 0.01, wall), DARK, gloss=0),
        Part(polygon((0.01, wall - 0.55), (0.3, wall - 0.45), (0.01, wall - 0.33)), LIGHT),
    ]
    return parts


def mug(random: Random) -> list[Part]:
    wide, top, taper = random.uniform(0.42, 0.58), random.uniform(-0.7, -0.5), random.uniform(-0.06, 0.08)
    handle, band = random.uniform(0.24, 0.32), random.uniform(-0.1, 0.3)
    left = -0.2 - wide
    right = left + 2 * wide
    return [
        Part(arc(right - 0.03, 0.08, handle, handle + 0.06, -1.6, 1.6, 0.13), SECOND, gloss=0.8),
        Part(box(left, top, right, 0.8, taper=-taper, corner=0.06), BODY, patterned=True, gloss=1.0),
        Part(ellipse(left + wide, 0.78, 0.9 * wide, 0.1), BODY, gloss=0.6),
        Part(box(left, band, right, band + 0.18), ACCENT, gloss=1.0),
        Part(ellipse(left + wide, top, wide + taper, 0.15), LIGHT, gloss=0.2),
        Part(ellipse(left + wide, top + 0.02, 0.85 * (wide + taper), 0.11), DARK, gloss=0.2),
        Part(box(left + 0.12, top + 0.25, left + 0.2, 0.6, corner=0.03), LIGHT, gloss=0),
    ]


def teapot(random: Random) -> list[Part]:
    wide, tall = random.uniform(0.5, 0.62), random.uniform(0.42, 0.56)
    spout = random.uniform(0.3, 0.55)
    return [
        Part(arc(-wide, 0.15, 0.28, 0.32, 1.3, 5.0, 0.12), SECOND, gloss=0.8),
        Part(polygon((0.3, 0.45), (0.35, 0.0), (0.7, 0.0), (0.9, -spout), (1.0, -spout + 0.06), (0.82, 0.3)), SECOND, gloss=0.8),
        Part(box(-0.6 * wide, 0.1 + 0.8 * tall, 0.6 * wide, 0.22 + tall), ACCENT),
        Part(ellipse(0, 0.15, wide, tall), BODY, patterned=True, gloss=1.0),
        Part(box(-0.96 * wide, 0.08, 0.96 * wide, 0.24), ACCENT, gloss=1.0),
        Part(ellipse(0, 0.2 - tall, 0.55 * wide, 0.13), SECOND, gloss=0.8),
        Part(ellipse(0, 0.06 - tall, 0.1, 0.1), ACCENT, gloss=0.9),
        Part(ellipse(-0.5 * wide, -0.1, 0.05, 0.14, 0.5), LIGHT, gloss=0),
    ]  # fmt: skip


def vase(random: Random) -> list[Part]:
    mouth, neck, belly, foot = (
        random.uniform(*ends) for ends in ((0.2, 0.42), (0.12, 0.24), (0.45, 0.65), (0.2, 0.36))
    )
    low = random.uniform(-0.1, 0.3)
    shape = [(-0.9, mouth), (-0.6, neck), (-0.4, neck + 0.05), (low, belly), (0.5, 0.5 * (belly + foot)), (0.92, foot)]
    half = float(np.interp(low, *zip(*shape, strict=True)))
    return [
        Part(arc(-0.32, -0.3, 0.24, 0.3, 1.9, 4.6, 0.09), SECOND, gloss=0.7),
        Part(arc(0.32, -0.3, 0.24, 0.3, -1.5, 1.3, 0.09), SECOND, gloss=0.7),
        Part(profile(shape), BODY, patterned=True, gloss=1.0),
        Part(box(-half * 0.93, low - 0.07, half * 0.93, low + 0.1), ACCENT, gloss=1.0),
        Part(box(-foot, 0.84, foot, 0.95), SECOND, gloss=0.8),
        Part(ellipse(0, -0.9, mouth, 0.09), LIGHT, gloss=0.2),
        Part(ellipse(0, -0.89, 0.8 * mouth, 0.06), DARK, gloss=0),
        Part(ellipse(-0.5 * belly, low - 0.05, 0.05, 0.16, 0.2), LIGHT, gloss=0),
    ]


FAMILIES: dict[str, tuple[Callable[[Random], list[Part]], ...]] = {
    "animal": (fish, bird, rabbit),
    "vehicle": (car, bus, tractor),
    "plant": (pine, tree, flower),
    "building": (house, tower, castle),
    "crockery": (mug, teapot, vase),
}
