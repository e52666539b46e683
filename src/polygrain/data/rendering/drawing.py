"""Draws the parts of a thing, with pattern, light and shadow, over a background."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from polygrain.data.rendering.backdrops import Field, Random, colour
from polygrain.data.rendering.things import BODY, SECOND, Part

SUPERSAMPLING = 3
FULL = 255


class Pose(NamedTuple):
    """Where a thing stands in the picture; shares of its side."""

    x: float
    y: float
    scale: float  # half the side of the thing's own [-1, 1]
    turn: float  # radians, clockwise
    mirrored: bool


class Pattern(NamedTuple):
    """What the body is covered with: lines or dots at a pace, along a direction."""

    kind: int  # plain, stripes, dots, checks, patches
    pace: float
    turn: float
    strength: float


def random_pattern(random: Random) -> Pattern:
    plain = random.random() < 0.4
    return Pattern(
        0 if plain else int(random.integers(1, 5)),
        float(random.uniform(7, 14)),
        float(random.uniform(0, math.pi)),
        float(random.uniform(0.3, 0.8)),
    )


def random_colours(random: Random) -> Field:
    """(6, 3) one of each of BODY ... GLASS."""
    hue = random.random()
    body = colour(hue, random.uniform(0.35, 0.9), random.uniform(0.45, 1.0))
    second = colour(hue + random.uniform(0.06, 0.5), random.uniform(0.2, 0.8), random.uniform(0.35, 1.0))
    accent = colour(hue + random.uniform(0.3, 0.7), random.uniform(0.5, 1.0), random.uniform(0.5, 1.0))
    dark, light = colour(random.random(), 0.3, 0.15), colour(random.random(), 0.08, 0.97)
    glass = colour(random.random(), random.uniform(0.15, 0.4), random.uniform(0.55, 0.9))
    return np.stack([body, second, accent, dark, light, glass])


def paint(
    background: Field, parts: Sequence[Part], colours: Field, pattern: Pattern, pose: Pose, light: float, random: Random
) -> tuple[Field, NDArray[np.bool_]]:
    """The picture (S, S, 3) in 0..1 and where the thing is seen (S, S).

    `light` is the direction the light comes from, in radians.
    """
    size = background.shape[0]
    fine = size * SUPERSAMPLING
    outlines = _placed(parts, pose, fine)
    canvas = Image.new("L", (fine, fine))
    draw = ImageDraw.Draw(canvas)
    for number, outline in enumerate(outlines, 1):
        draw.polygon(outline.ravel().tolist(), fill=number)
    numbers = np.asarray(canvas)
    places = np.flatnonzero(numbers)  # (M,) fine pixels the thing covers
    shown = _shaded(numbers.ravel()[places] - 1, places, parts, outlines, colours, pattern, pose, light, fine)
    layer = np.zeros((fine * fine, 4), np.float32)
    layer[places, :3], layer[places, 3] = shown, 1
    grid = (size, SUPERSAMPLING, size, SUPERSAMPLING, 4)
    layer = layer.reshape(grid).mean(axis=(1, 3))  # (S, S, 4), colours times cover
    cover = layer[..., 3:]
    picture = background * (1 - _shadow(cover[..., 0], light)[..., None]) * (1 - cover)
    picture += layer[..., :3] * _relief(cover[..., 0], light)[..., None]
    return picture, cover[..., 0] >= 0.5


def _placed(parts: Sequence[Part], pose: Pose, fine: int) -> list[NDArray[np.float32]]:
    """Outlines of the parts in fine pixels."""
    sine, cosine = math.sin(pose.turn), math.cos(pose.turn)
    flip = -1 if pose.mirrored else 1
    matrix = np.array([[flip * cosine, flip * sine], [-sine, cosine]]) * (pose.scale * fine)
    points = np.concatenate([part.points for part in parts]) @ matrix + (pose.x * fine, pose.y * fine)
    ends = np.cumsum([len(part.points) for part in parts])[:-1]
    return np.split(points.astype(np.float32), ends)


def _shaded(
    number: NDArray[np.uint8],
    places: NDArray[np.intp],
    parts: Sequence[Part],
    outlines: Sequence[NDArray[np.float32]],
    colours: Field,
    pattern: Pattern,
    pose: Pose,
    light: float,
    fine: int,
) -> Field:
    """Colours (M, 3) of the fine pixels at `places`, which show these parts."""
    y, x = np.divmod(places.astype(np.int32), fine)
    low = np.array([outline.min(0) for outline in outlines], np.float32)  # (parts, 2)
    high = np.array([outline.max(0) for outline in outlines], np.float32)
    middle, half = (low + high) / 2, np.maximum((high - low) / 2, 1)
    across = (x - middle[number, 0]) / half[number, 0]  # (M,) -1..1 over the part
    down = (y - middle[number, 1]) / half[number, 1]
    gloss = np.array([part.gloss for part in parts], np.float32)[number]
    lit = math.cos(light) * across + math.sin(light) * down
    shade = 1 + gloss * (0.22 * lit - 0.1 * (across * across + down * down) + 0.05)
    shown = colours[np.array([part.colour for part in parts])[number]]  # (M, 3)
    if pattern.kind:
        patterned = np.array([part.patterned for part in parts], np.float32)[number]
        amount = pattern.strength * patterned * _pattern(pattern, pose, x / fine, y / fine)
        shown = shown + (colours[SECOND] - colours[BODY]) * amount[:, None]
    return np.clip(shown * shade[:, None], 0, 1)


def _pattern(pattern: Pattern, pose: Pose, x: Field, y: Field) -> Field:
    """How much of the second colour is where, 0..1, (M,); it turns and grows with the thing."""
    flip = -1 if pose.mirrored else 1
    angle = pose.turn + flip * pattern.turn
    right, down = (x - pose.x) / pose.scale * pattern.pace, (y - pose.y) / pose.scale * pattern.pace
    u = math.cos(angle) * right + math.sin(angle) * down
    v = math.cos(angle) * down - math.sin(angle) * right
    if pattern.kind == 1:
        return (np.sin(u) > 0).astype(np.float32)
    waves = np.sin(u) * np.sin(v)
    if pattern.kind == 2:
        return (waves > 0.35).astype(np.float32)
    if pattern.kind == 3:
        return (waves > 0).astype(np.float32)
    return (np.sin(0.6 * u + 1.3 * np.sin(0.9 * v)) > 0.2).astype(np.float32)


def _blurred(cover: Field, radius: float) -> Field:
    image = Image.fromarray((cover * FULL).astype(np.uint8)).filter(ImageFilter.GaussianBlur(radius))
    return np.asarray(image, np.float32) / FULL


def _shadow(cover: Field, light: float) -> Field:
    """A soft copy of the thing, away from the light (S, S)."""
    away = 0.05 * cover.shape[0]
    shift = (round(-away * math.sin(light)), round(-away * math.cos(light)))
    return 0.4 * np.roll(_blurred(cover, away), shift, (0, 1))


def _relief(cover: Field, light: float) -> Field:
    """Brightness of the thing taken as a cushion (S, S)."""
    down, across = np.gradient(_blurred(cover, 0.04 * cover.shape[0]))
    slope = math.cos(light) * across + math.sin(light) * down  # rises away from the border, so bright on the far side
    return 1 - np.clip(1.1 * slope * cover.shape[0] / 32, -0.35, 0.35)
