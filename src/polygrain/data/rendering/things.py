"""The classes of the rendered scenes: five families of three kinds each."""

from collections.abc import Callable
from typing import NamedTuple

from polygrain.data.rendering.living import bird, fish, flower, pine, rabbit, tree
from polygrain.data.rendering.made import bus, car, castle, house, mug, teapot, tower, tractor, vase
from polygrain.data.rendering.materials import (
    Material,
    blocks,
    bricks,
    checks,
    dots,
    feathers,
    fur,
    glaze,
    leaves,
    needles,
    panels,
    rings,
    scales,
    slats,
    veins,
    zigzag,
)
from polygrain.data.rendering.shapes import Part, Random


class Kind(NamedTuple):
    """A fine class."""

    name: str
    draw: Callable[[Random], list[Part]]
    material: Material
    size: float  # so that all kinds cover as much of a picture


FAMILIES: dict[str, tuple[Kind, ...]] = {
    "animal": (Kind("fish", fish, scales, 1.06), Kind("bird", bird, feathers, 1.11), Kind("rabbit", rabbit, fur, 1.00)),
    "vehicle": (Kind("car", car, glaze, 1.08), Kind("bus", bus, rings, 0.84), Kind("tractor", tractor, slats, 0.92)),
    "plant": (Kind("pine", pine, needles, 1.20), Kind("tree", tree, leaves, 1.00), Kind("flower", flower, veins, 1.08)),
    "building": (
        Kind("house", house, bricks, 0.88),
        Kind("tower", tower, panels, 1.01),
        Kind("castle", castle, blocks, 0.86),
    ),
    "crockery": (Kind("mug", mug, dots, 0.97), Kind("teapot", teapot, zigzag, 1.08), Kind("vase", vase, checks, 1.02)),
}
