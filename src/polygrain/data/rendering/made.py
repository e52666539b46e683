"""Vehicles, which share wheels and glass, buildings, windows in walls, and crockery, glazed rounds with a band."""

import numpy as np

from polygrain.data.rendering.shapes import (
    ACCENT,
    BODY,
    DARK,
    GLASS,
    LIGHT,
    SECOND,
    Part,
    Random,
    arc,
    box,
    ellipse,
    polygon,
    profile,
)


def _wheel(x: float, y: float, radius: float) -> list[Part]:
    return [
        Part(ellipse(x, y, radius, radius), DARK, gloss=0.3),
        Part(ellipse(x, y, 0.55 * radius, 0.55 * radius), LIGHT, gloss=0.7),
        Part(ellipse(x, y, 0.2 * radius, 0.2 * radius), DARK, gloss=0),
    ]


def car(random: Random) -> list[Part]:
    roof, slope, wheel = random.uniform(0.36, 0.5), random.uniform(0.12, 0.34), random.uniform(0.2, 0.26)
    left, right = random.uniform(-0.7, -0.45), random.uniform(0.35, 0.6)
    middle, top = (left + right) / 2, 0.08 - roof  # between the windows, and of them
    return [
        Part(box(left, -roof, right, 0.1, taper=slope), BODY, gloss=0.6),
        Part(polygon((left + 0.14, 0), (left + slope + 0.06, top), (middle - 0.04, top), (middle - 0.04, 0)), GLASS),
        Part(polygon((middle + 0.04, 0), (middle + 0.04, top), (right - slope - 0.06, top), (right - 0.14, 0)), GLASS),
        Part(box(-0.97, -0.02, 0.97, 0.44, corner=0.1), BODY, patterned=True, gloss=0.7),
        Part(box(-0.97, 0.28, 0.97, 0.4, corner=0.02), SECOND, gloss=0.3),
        Part(ellipse(0.9, 0.14, 0.07, 0.08), LIGHT),
        Part(box(-0.97, 0.08, -0.88, 0.2), ACCENT, gloss=0),
        Part(box(middle + 0.02, 0.1, middle + 0.16, 0.14), DARK, gloss=0),
        *_wheel(-0.55, 0.45, wheel),
        *_wheel(0.55, 0.45, wheel),
    ]


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
                (-wide - 0.12, eaves + 0.04),
                (-flat * wide, eaves - ridge),
                (flat * wide, eaves - ridge),
                (wide + 0.12, eaves + 0.04),
            ),
            ACCENT,
            gloss=0.5,
        ),
        Part(box(door - 0.13, 0.35, door + 0.13, 0.9), SECOND, gloss=0.3),
        Part(ellipse(door + 0.07, 0.64, 0.03, 0.03), LIGHT, gloss=0),
    ]
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
    parts += [Part(box(x, wall - 0.13, x + 0.14, wall + 0.02), BODY, gloss=0.3) for x in (-0.5, -0.22, 0.06, 0.34)]
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
        Part(polygon((0.3, 0.45), (0.35, 0), (0.7, 0), (0.9, -spout), (1, 0.06 - spout), (0.82, 0.3)), SECOND),
        Part(box(-0.6 * wide, 0.1 + 0.8 * tall, 0.6 * wide, 0.22 + tall), ACCENT),
        Part(ellipse(0, 0.15, wide, tall), BODY, patterned=True, gloss=1.0),
        Part(box(-0.96 * wide, 0.08, 0.96 * wide, 0.24), ACCENT, gloss=1.0),
        Part(ellipse(0, 0.2 - tall, 0.55 * wide, 0.13), SECOND, gloss=0.8),
        Part(ellipse(0, 0.06 - tall, 0.1, 0.1), ACCENT, gloss=0.9),
        Part(ellipse(-0.5 * wide, -0.1, 0.05, 0.14, 0.5), LIGHT, gloss=0),
    ]


def vase(random: Random) -> list[Part]:
    mouth, neck, belly, foot = (
        random.uniform(*ends) for ends in ((0.2, 0.42), (0.12, 0.24), (0.45, 0.65), (0.2, 0.36))
    )
    low = random.uniform(-0.1, 0.3)
    shape = [(-0.9, mouth), (-0.6, neck), (-0.4, neck + 0.05), (low, belly), (0.5, 0.5 * (belly + foot)), (0.92, foot)]
    heights, widths = zip(*shape, strict=True)
    half = float(np.interp(low, np.array(heights), np.array(widths)))
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
