"""Draws a thing, with material, light and shadow, over a background."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

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
    saturation = random.uniform(0.25, 0.75, 2)
    body, second = colour(hue, saturation[0], first), colour(hue + 0.06, saturation[1], then)
    accent = colour(hue + 0.12, random.uniform(0.6, 0.8), random.uniform(0.5, 0.95))
    dark, light = colour(mood.hue, 0.4, random.uniform(0.12, 0.32)), colour(hue, 0.08, 0.97)
    glass = colour(mood.hue, random.uniform(0.15, 0.4), random.uniform(0.5, 0.85))
    return np.stack([body, second, accent, dark, light, glass])


def paint(background: Field, things: Sequence[Thing], poses: Sequence[Pose]) -> Painting:
    """Paints things over a background (S, S, 3); later ones cover earlier ones."""
    size = background.shape[0]
    fine = size * SUPERSAMPLING
    outlines = [_outlines(thing.parts, pose, fine) for thing, pose in zip(things, poses, strict=True)]
    canvas = Image.new("L", (fine, fine))
    draw = ImageDraw.Draw(canvas)
    for number, outline in enumerate((outline for each in outlines for outline in each), 1):
        draw.polygon(outline.ravel().tolist(), fill=number)
    numbers = np.asarray(canvas).ravel()
    layer = np.zeros((fine, fine, 4), np.uint8)
    first, boxes = 1, []
    for thing, pose, own in zip(things, poses, outlines, strict=True):
        places = np.flatnonzero((numbers >= first) & (numbers < first + len(own)))  # (M,) fine pixels that show it
        shown = np.full((len(places), 4), FULL, np.uint8)
        shown[:, :3] = _colours(numbers[places] - first, places, own, thing, pose, fine) * FULL
        layer.view(np.uint32).ravel()[places] = shown.view(np.uint32).ravel()
        boxes += _box(places, fine)
        first += len(own)
    shrunk = np.asarray(Image.fromarray(layer).reduce(SUPERSAMPLING), np.float32) / FULL  # (S, S, 4)
    cover, light = shrunk[..., 3], poses[0].light
    behind = background * ((1 - _shadow(cover, light)) * (1 - cover))[..., None]
    pixels = behind + shrunk[..., :3] * (cover * _relief(cover, light))[..., None]
    return Painting(pixels, cover >= 0.5, np.array(boxes, np.float32).reshape(-1, 4))


def _box(places: NDArray[Any], fine: int) -> list[tuple[float, float, float, float]]:
    """The box of what is seen of a thing, if anything is."""
    if not len(places):
        return []
    down, across = np.divmod(places, fine)
    top, left, bottom, right = down[0], across.min(), down[-1] + 1, across.max() + 1
    y, x, height, width = (float(side) / SUPERSAMPLING for side in (top, left, bottom - top, right - left))
    return [(y, x, height, width)]


def _outlines(parts: Sequence[Part], pose: Pose, fine: int) -> list[Field]:
    """Of the parts, in fine pixels."""
    sine, cosine = math.sin(pose.turn), math.cos(pose.turn)
    flip = -1 if pose.mirrored else 1
    matrix = np.array([[flip * cosine, flip * sine], [-sine, cosine]]) * (pose.scale * fine)
    points = np.concatenate([part.points for part in parts]) @ matrix + (pose.x * fine, pose.y * fine)
    ends = np.cumsum([len(part.points) for part in parts])[:-1]
    return np.split(points.astype(np.float32), ends)


def _colours(
    number: NDArray[np.uint8], places: NDArray[Any], outlines: Sequence[Field], thing: Thing, pose: Pose, fine: int
) -> Field:
    """(M, 3) of the fine pixels at `places`, which show the parts `number`."""
    down = places.astype(np.int32) // fine
    x, y = (places - down * fine).astype(np.float32), down.astype(np.float32)
    slot = np.array([part.colour for part in thing.parts])[number]
    shown = thing.colours[slot]  # (M, 3)
    worn = np.flatnonzero(np.array([part.patterned for part in thing.parts])[number])
    amount = thing.finish.strength * _material(thing, pose, x[worn] / fine, y[worn] / fine)
    other = thing.colours[np.where(slot[worn] == SECOND, BODY, SECOND)]
    shown[worn] += (other - shown[worn]) * amount[:, None]
    shade = _shade(number, x, y, outlines, thing.parts, pose.light)
    return np.clip(shown * shade[:, None], 0, 1)


def _shade(
    number: NDArray[np.uint8], x: Field, y: Field, outlines: Sequence[Field], parts: Sequence[Part], light: float
) -> Field:
    """Brightness (M,): each part is taken for a rounded body, lit from one side."""
    low = np.array([outline.min(0) for outline in outlines])  # (parts, 2)
    high = np.array([outline.max(0) for outline in outlines])
    grow = 2 / np.maximum(high - low, 2)
    shift = -(low + high) / 2 * grow
    across, down = x * grow[number, 0] + shift[number, 0], y * grow[number, 1] + shift[number, 1]  # (M,) -1..1
    gloss = np.array([part.gloss for part in parts], np.float32)[number]
    lit = math.cos(light) * across + math.sin(light) * down
    return 1 + gloss * (0.22 * lit - 0.1 * (across * across + down * down) + 0.05)


def _material(thing: Thing, pose: Pose, x: Field, y: Field) -> Field:
    """How much of the second colour is where, 0..1, (M,); it turns, mirrors and grows with the thing."""
    flip = -1 if pose.mirrored else 1
    angle = pose.turn + flip * thing.finish.turn
    pace = thing.finish.pace / pose.scale
    right, down = (x - pose.x) * pace, (y - pose.y) * pace
    u = flip * (math.cos(angle) * right + math.sin(angle) * down)
    return thing.material(u, math.cos(angle) * down - math.sin(angle) * right)


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
