"""Animals, which share eyes and a patterned body, and plants, which share stems and leaves."""

import math

from polygrain.data.rendering.shapes import ACCENT, BODY, DARK, LIGHT, SECOND, Part, Random, arc, box, ellipse, polygon


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
        Part(polygon((0, -0.4), (0.05 + sway, 0.3), (0.06, 0.97), (-0.05, 0.97), (sway - 0.04, 0.3)), SECOND),
        Part(ellipse(0.3, 0.55, leaf, 0.12, -0.5), SECOND, patterned=True),
        Part(ellipse(-0.28, 0.7, leaf, 0.12, 0.5), SECOND, patterned=True),
    ]  # fmt: skip
    for k in range(petals):
        angle = 2 * math.pi * k / petals
        x, y = (heart + 0.7 * long) * math.cos(angle), -0.4 + (heart + 0.7 * long) * math.sin(angle)
        parts.append(Part(ellipse(x, y, long, wide, angle), BODY, patterned=True, gloss=0.8))
    parts.append(Part(ellipse(0, -0.4, heart, heart), ACCENT, gloss=0.9))
    return parts
