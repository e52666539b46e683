"""Draws a thing, with material, light and shadow, over a background."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from polygrain.data.rendering.backdrops import Mood, Random, colour
from polygrain.data.rendering.materials import Field, Material
from polygrain.data.rendering.shapes import BODY, SECOND, Part

SUPERSAMPLING = 3
FULL = 255


class Finish(NamedTuple):
    """How an instance wears the material of its kind."""

    pace: float  # repeats over half the thing's side
    turn: float  # radians
    strength: float  # of the second colour


class Thing(NamedTuple):
    """An instance."""

    parts: Sequence[Part]
    colours: Field  # (6, 3) one of each of BODY ... GLASS
    material: Material
    finish: Finish


class Pose(NamedTuple):
    """How a thing stands in one picture; lengths as shares of the picture's side, angles clockwise in radians."""

    x: float
    y: float
    scale: float  # half of the thing's own [-1, 1]
    turn: float
    mirrored: bool
    light: float  # direction it comes from


class Painting(NamedTuple):
    """What came of it."""

    pixels: Field  # (S, S, 3) in 0..1
    seen: NDArray[np.bool_]  # (S, S) where there is a thing
    boxes: Field  # (things, 4) top, left, height, width in pixels; of those that are seen


def random_finish(random: Random) -> Finish:
    return Finish(float(random.uniform(3.8, 4.8)), float(random.normal(0, 0.1)), float(random.uniform(0.6, 0.9)))


def random_colours(random: Random, mood: Mood) -> Field:
    """(6, 3) one of each of BODY ... GLASS; of body and second colour one is clearly darker."""
    hue = mood.hue + 0.5 + random.normal(0, 0.05)
    values = (0.95, 0.6) if mood.dark else (0.75, 0.4)
    first, then = values if random.random() < 0.5 else values[::-1]
    saturation = random.uniform(0.5, 0.7, 2)
    body, second = colour(hue, saturation[0], first), colour(hue + 0.06, saturation[1], then)
    accent = colour(hue + random.choice([-0.1, 0.1]), random.uniform(0.6, 0.8), random.uniform(0.5, 0.95))
    dark, light = colour(mood.hue, 0.4, random.uniform(0.12, 0.4)), colour(hue, 0.08, 0.97)
    glass = colour(mood.hue, random.uniform(0.15, 0.4), random.uniform(0.5, 0.85))
    return np.stack([body, second, accent, dark, light, glass])


def paint(background: Field, things: Sequence[Thing], poses: Sequence[Pose]) -> Painting:
    """Paints things over a background (S, S, 3); later ones cover earlier ones.

    Parts are drawn as numbers on a fine canvas, whose colours are looked up and averaged over each pixel. Light changes
    slowly over a part, so it is computed per pixel.
    """
    size = background.shape[0]
    fine = size * SUPERSAMPLING
    parts = [part for thing in things for part in thing.parts]
    points = np.concatenate([_placed(thing, pose) for thing, pose in zip(things, poses, strict=True)]) * fine
    starts = np.cumsum([0] + [len(part.points) for part in parts])  # (parts + 1,)
    numbers = _numbered(np.split(points, starts[1:-1]), fine)
    colours = np.concatenate([np.zeros(1, np.uint32), *(_part_colours(thing) for thing in things)])
    layer = np.take(colours, numbers)
    first, boxes = 1, []
    for thing, pose in zip(things, poses, strict=True):
        _wear(layer, numbers, first, thing, pose)
        boxes += _box((numbers >= first) & (numbers < first + len(thing.parts)))
        first += len(thing.parts)
    shrunk = Image.fromarray(layer.view(np.uint8).reshape(fine, fine, 4)).reduce(SUPERSAMPLING)
    coloured = np.asarray(shrunk, np.float32) / FULL  # (S, S, 4)
    cover, light = coloured[..., 3], poses[0].light
    middle = slice(SUPERSAMPLING // 2, None, SUPERSAMPLING)
    shade = _shade(numbers[middle, middle], parts, points / SUPERSAMPLING, starts, light)
    behind = background * ((1 - _shadow(cover, light)) * (1 - cover))[..., None]
    pixels = behind + coloured[..., :3] * (cover * shade * _relief(cover, light))[..., None]
    return Painting(pixels, cover >= 0.5, np.array(boxes, np.float32).reshape(-1, 4))


def _placed(thing: Thing, pose: Pose) -> Field:
    """Points of all its parts, as shares of the picture's side."""
    sine, cosine = math.sin(pose.turn), math.cos(pose.turn)
    flip = -1 if pose.mirrored else 1
    matrix = np.array([[flip * cosine, flip * sine], [-sine, cosine]], np.float32) * pose.scale
    points = np.concatenate([part.points for part in thing.parts])
    return points @ matrix + np.array([pose.x, pose.y], np.float32)


def _numbered(outlines: Sequence[Field], fine: int) -> NDArray[np.uint8]:
    """(fine, fine) the number, from 1, of the outline on top; 0 where there is none."""
    canvas = Image.new("L", (fine, fine))
    draw = ImageDraw.Draw(canvas)
    for number, outline in enumerate(outlines, 1):
        draw.polygon(outline.ravel().tolist(), fill=number)
    return np.asarray(canvas)


def _packed(colours: Field) -> NDArray[np.uint32]:
    """Opaque RGBA (n,) of colours (n, 3) in 0..1."""
    rgba = np.full((len(colours), 4), FULL, np.uint8)
    rgba[:, :3] = colours * FULL
    return rgba.view(np.uint32)[:, 0]


def _part_colours(thing: Thing) -> NDArray[np.uint32]:
    return _packed(thing.colours[[part.colour for part in thing.parts]])


def _wear(layer: NDArray[np.uint32], numbers: NDArray[np.uint8], first: int, thing: Thing, pose: Pose) -> None:
    """Puts the material on the parts that have it, which turns, mirrors and grows with the thing."""
    slots = [BODY if part.colour == SECOND else SECOND for part in thing.parts]
    own = thing.colours[[part.colour for part in thing.parts]]
    worn = np.zeros(FULL + 1, np.uint32)  # by number, 0 where there is no material
    worn[first : first + len(own)] = _packed(own + thing.finish.strength * (thing.colours[slots] - own))
    worn[first : first + len(own)] *= np.array([part.patterned for part in thing.parts])
    places = np.flatnonzero(np.take(worn != 0, numbers))  # (M,)
    fine = len(numbers)
    down = places // fine
    flip = -1 if pose.mirrored else 1
    angle = pose.turn + flip * thing.finish.turn
    pace = thing.finish.pace / pose.scale
    x = ((places - down * fine).astype(np.float32) / fine - pose.x) * pace
    y = (down.astype(np.float32) / fine - pose.y) * pace
    sine, cosine = math.sin(angle), math.cos(angle)
    there = places[thing.material(flip * (cosine * x + sine * y), cosine * y - sine * x)]
    layer.ravel()[there] = worn[numbers.ravel()[there]]


def _box(shown: NDArray[np.bool_]) -> list[tuple[float, float, float, float]]:
    """The box of what is seen of a thing, if anything is."""
    down, across = np.flatnonzero(shown.any(1)), np.flatnonzero(shown.any(0))
    if not len(down):
        return []
    top, left, bottom, right = (
        int(side) / SUPERSAMPLING for side in (down[0], across[0], down[-1] + 1, across[-1] + 1)
    )
    return [(top, left, bottom - top, right - left)]


def _shade(
    numbers: NDArray[np.uint8], parts: Sequence[Part], points: Field, starts: NDArray[np.int64], light: float
) -> Field:
    """Brightness (S, S): each part is taken for a rounded body, lit from one side."""
    low, high = np.minimum.reduceat(points, starts[:-1]), np.maximum.reduceat(points, starts[:-1])  # (parts, 2)
    table = np.zeros((5, len(parts) + 1), np.float32)  # by number: places along x and y to -1..1, and the gloss
    table[:2, 1:] = (2 / np.maximum(high - low, 1)).T
    table[2:4, 1:] = (low + high).T / -2 * table[:2, 1:]
    table[4, 1:] = [part.gloss for part in parts]
    grow_x, grow_y, shift_x, shift_y, gloss = np.take(table, numbers, axis=1)
    at = np.arange(len(numbers), dtype=np.float32) + 0.5
    across, down = at * grow_x + shift_x, at[:, None] * grow_y + shift_y
    lit = math.cos(light) * across + math.sin(light) * down
    return 1 + gloss * (0.22 * lit - 0.1 * (across * across + down * down) + 0.05)


def _blurred(cover: Field, radius: float) -> Image.Image:
    return Image.fromarray((cover * FULL).astype(np.uint8)).filter(ImageFilter.GaussianBlur(radius))


def _shadow(cover: Field, light: float) -> Field:
    """How dark a soft copy of the thing, moved away from the light, makes the background (S, S)."""
    away = 0.05 * cover.shape[0]
    shadow = Image.new("L", (cover.shape[1], cover.shape[0]))
    shadow.paste(_blurred(cover, away), (round(-away * math.cos(light)), round(-away * math.sin(light))))
    return np.asarray(shadow, np.float32) * (0.4 / FULL)


def _relief(cover: Field, light: float) -> Field:
    """Brightness of the thing taken for a cushion (S, S)."""
    height = np.asarray(_blurred(cover, 0.04 * cover.shape[0]), np.float32) / FULL
    slope = np.zeros_like(height)  # towards the light
    slope[:, 1:-1] += (height[:, 2:] - height[:, :-2]) * math.cos(light)
    slope[1:-1] += (height[2:] - height[:-2]) * math.sin(light)
    return 1 - np.clip(slope * (cover.shape[0] / 58), -0.35, 0.35)
