"""Backgrounds of the rendered scenes: an upper and a lower half, with texture, clutter and their classes."""

import colorsys
import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Field = NDArray[np.floating[Any]]
Random = np.random.Generator

SKY, LAND, WATER, WALL, FLOOR = range(5)
BACKDROPS = ("sky", "land", "water", "wall", "floor")


class Mood(NamedTuple):
    """What the colours of a picture go with."""

    hue: float  # of the background; things have the opposite
    dark: bool  # the background is darker than the things, or lighter


def random_mood(random: Random) -> Mood:
    return Mood(float(random.choice([0.05, 0.55])), bool(random.random() < 0.5))


class Backdrop(NamedTuple):
    """A background and its truth."""

    pixels: Field  # (S, S, 3) in 0..1
    classes: NDArray[np.uint8]  # (S, S) SKY ... FLOOR
    horizon: float  # share of the height above it


def colour(hue: float, saturation: float, value: float) -> Field:
    """One RGB colour; the hue goes round."""
    return np.array(colorsys.hsv_to_rgb(hue % 1, min(1.0, max(0.0, saturation)), min(1.0, max(0.0, value))), np.float32)


def backdrop(random: Random, size: int, mood: Mood) -> Backdrop:
    """Draws one of sky over land, sky over water, and wall over floor, in the colours of a mood of its own."""
    value, value_below = random.permutation([0.85, 0.5]) + random.normal(0, 0.04, 2)
    saturation = random.uniform(0.2, 0.3)
    hue, other = mood.hue + random.normal(0, 0.04, 2)
    horizon = float(random.uniform(0.3, 0.75))
    indoors = random.random() < 0.4
    upper, lower = (WALL, FLOOR) if indoors else (SKY, LAND if random.random() < 0.5 else WATER)
    x, y = grid(size)
    line = np.full(size, horizon, np.float32)  # (S,) height of the border in each column
    if lower == LAND:
        line += _waves(random, x[0]) * random.uniform(0.01, 0.05)
    below = y > line
    top, bottom = colour(hue, saturation, value), colour(other, saturation + 0.15, value_below)
    above_tone = (_sky if upper == SKY else _wall)(random, x, y, size)
    below_tone = {LAND: _land, WATER: _water, FLOOR: _floor}[lower](random, x, y, horizon, size)
    above_tone, below_tone = 0.4 + 0.6 * above_tone, 0.4 + 0.6 * below_tone
    fade = colour(hue + 0.08, 0.6 * saturation, min(1.0, value * 1.2))
    share = (y / max(horizon, 0.1))[..., None] * (0.8 if upper == SKY else 0.2)
    above = (top + (fade - top) * share) * above_tone[..., None]
    ground = bottom * below_tone[..., None]
    pixels = np.where(below[..., None], ground, above)
    pixels = _clutter(random, pixels, upper, lower, horizon, size, value)
    return Backdrop(pixels, np.where(below, lower, upper).astype(np.uint8), horizon)


def lighting(random: Random, size: int) -> Field:
    """Brightness over the picture (S, S, 1): a light from somewhere around it."""
    x, y = grid(size)
    angle, strength = random.uniform(0, 2 * math.pi), random.uniform(0.5, 1.1)
    return (1 + strength * (math.cos(angle) * (x - 0.5) + math.sin(angle) * (y - 0.5)))[..., None]


def grid(size: int) -> tuple[Field, Field]:
    """x and y of the pixel centres, (S, S) in 0..1."""
    at = (np.arange(size, dtype=np.float32) + 0.5) / size
    x, y = np.meshgrid(at, at)
    return x, y


def noise(random: Random, rows: int, columns: int, size: int) -> Field:
    """Smooth noise of so many bumps down and across, (S, S) in -1..1."""
    coarse = Image.fromarray(random.integers(0, 256, (rows, columns), np.uint8))
    return np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC), np.float32) / 127.5 - 1


def _waves(random: Random, x: Field) -> Field:
    phase, pace = random.uniform(0, 6.3, 2), random.uniform(4, 14, 2)
    return (np.sin(pace[0] * x + phase[0]) + 0.5 * np.sin(pace[1] * x + phase[1])).astype(np.float32)


def _sky(random: Random, x: Field, y: Field, size: int) -> Field:
    """Soft clouds."""
    cover = noise(random, 5, 3, size) + 0.5 * noise(random, 11, 6, size)
    return 1 + 0.35 * np.clip(cover - random.uniform(0.0, 0.8), 0, 1)


def _wall(random: Random, x: Field, y: Field, size: int) -> Field:
    """Paper with stripes or diamonds, bricks, or plaster."""
    kind, pace = random.integers(4), random.uniform(5, 11)
    grain = 0.04 * noise(random, 40, 40, size)
    if kind == 0:
        return 1 + grain + 0.1 * np.sign(np.sin(2 * math.pi * pace * x))
    if kind == 1:
        return 1 + grain + 0.12 * np.sign(np.sin(math.pi * pace * (x + y)) * np.sin(math.pi * pace * (x - y)))
    if kind == 2:
        row = np.floor(1.6 * pace * y)
        joint = (np.mod(1.6 * pace * y, 1) < 0.16) | (np.mod(0.8 * pace * x + 0.5 * np.mod(row, 2), 1) < 0.09)
        return 1 + grain - 0.25 * joint
    return 1 + 0.12 * noise(random, 9, 9, size) + grain


def _land(random: Random, x: Field, y: Field, horizon: float, size: int) -> Field:
    """Tufts, finer towards the horizon."""
    near = np.clip((y - horizon) / (1 - horizon), 0, 1)
    return 0.95 + 0.25 * noise(random, 16, 48, size) * (0.4 + 0.6 * near) + 0.15 * noise(random, 5, 7, size)


def _water(random: Random, x: Field, y: Field, horizon: float, size: int) -> Field:
    """Ripples, wider towards the viewer."""
    depth = np.clip((y - horizon) / (1 - horizon), 0.0, 1) + 0.15
    swell = noise(random, 10, 5, size)
    return 1 + 0.22 * np.sin(random.uniform(16, 26) * np.log(depth) * 2 + 2.5 * swell) + 0.15 * (1 - depth)


def _floor(random: Random, x: Field, y: Field, horizon: float, size: int) -> Field:
    """Planks or tiles that run to a vanishing point."""
    depth = np.clip((y - horizon + 0.25) / 1.25, 0.08, None)
    across = (x - random.uniform(0.2, 0.8)) / depth * random.uniform(1.5, 3.0)
    along = random.uniform(0.8, 1.6) / depth
    if random.random() < 0.5:
        tone = np.mod(np.floor(across) * 0.37 + 0.11 * np.floor(0.4 * along), 1) * 0.3 - 0.15
        return 1 + tone - 0.25 * (np.mod(across, 1) < 0.08) + 0.06 * noise(random, 30, 8, size)
    return 1 + 0.18 * (np.mod(np.floor(across) + np.floor(along), 2) - 0.5)


def _clutter(random: Random, pixels: Field, upper: int, lower: int, horizon: float, size: int, value: float) -> Field:
    """Small things that belong to the background."""
    scale = 2
    canvas = Image.new("L", (size * scale, size * scale))
    draw = ImageDraw.Draw(canvas)
    for _ in range(int(random.integers(0, 5))):
        x, y, reach = random.random(), random.random(), random.uniform(0.025, 0.06)
        if y < horizon and upper == SKY:
            continue  # clouds are enough
        if y < horizon:
            wide, tall = 1.0, random.uniform(0.7, 1.4)  # a picture on the wall
        else:
            reach *= 0.4 + (y - horizon)
            wide, tall = (2.5, 0.35) if lower == WATER else (1.3, 0.7)  # a wave, a stone
        corners = np.array([x - reach * wide, y - reach * tall, x + reach * wide, y + reach * tall]) * size * scale
        (draw.rectangle if y < horizon else draw.ellipse)(corners.tolist(), fill=int(random.integers(90, 220)))
    cover = np.asarray(canvas.reduce(scale), np.float32)[..., None] / 255
    tint = colour(random.random(), 0.3, 1.0 if value < 0.5 else random.choice([0.3, 1.0]))
    return pixels + (tint - pixels) * cover * 0.8
