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


FAMILIES: dict[str, tuple[Kind, ...]] = {
    "animal": (Kind("fish", fish, scales), Kind("bird", bird, feathers), Kind("rabbit", rabbit, fur)),
    "vehicle": (Kind("car", car, glaze), Kind("bus", bus, rings), Kind("tractor", tractor, slats)),
    "plant": (Kind("pine", pine, needles), Kind("tree", tree, leaves), Kind("flower", flower, veins)),
    "building": (Kind("house", house, bricks), Kind("tower", tower, panels), Kind("castle", castle, blocks)),
    "crockery": (Kind("mug", mug, dots), Kind("teapot", teapot, zigzag), Kind("vase", vase, checks)),
}
