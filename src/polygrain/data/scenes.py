"""Scenes: a built-in image set, rendered from a seed, whose truth is known at every granularity.

Each picture shows two or three things of one kind before a background. The fifteen kinds (fish, bird, rabbit; car, bus,
tractor; pine, tree, flower; house, tower, castle; mug, teapot, vase) form five families. Known are the family (coarse
class), the kind (fine class), the instance, a box for each thing and a mask of ten classes (five backgrounds, five
families).

A kind has a shape, parts and a material (scales, bricks, glaze ...). Colours, number, places, sizes, tilt, light and
background are drawn without regard to it, so pixels say little: with 4,000 pictures to search and 1,000 to name, kNN
(k = 10) finds 8 % of the kinds by mean colour and 17 % by 16x16 pixels, where chance is 7 %, and 23 % and 34 % of the
families, where chance is 20 %. A small convolutional network that is told the kinds names most of them after half a
minute on one core. Colours are few on purpose (warm things before something cold, or cold ones before something
warm): where each picture had its own, training without labels would learn the colours first.

An instance is what a picture shows: its things keep their proportions, colours and material in all its pictures
(`images_per_instance`); all else is new in each. Kinds follow each other in turn, so every stretch of pictures is
balanced. A picture is a function of (seed, index, size) alone; another seed gives other instances of the same classes,
for validation.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from polygrain.data.images import Images
from polygrain.data.rendering.backdrops import BACKDROPS, Random, backdrop, lighting, random_mood
from polygrain.data.rendering.drawing import Pose, Thing, paint, random_colours, random_finish
from polygrain.data.rendering.things import FAMILIES

COARSE = tuple(FAMILIES)
KINDS = tuple(kind for kinds in FAMILIES.values() for kind in kinds)
FINE = tuple(kind.name for kind in KINDS)
COARSE_OF_FINE = np.repeat(np.arange(len(COARSE)), [len(kinds) for kinds in FAMILIES.values()])
MASK_CLASSES = (*BACKDROPS, *COARSE)
SCALE = {2: 0.38, 3: 0.32}  # by number of things


class Scene(NamedTuple):
    """One picture and its truth."""

    pixels: NDArray[np.uint8]  # (S, S, 3)
    mask: NDArray[np.uint8]  # (S, S) position in MASK_CLASSES
    boxes: NDArray[np.float32]  # (things, 4) top, left, height, width in pixels, of what is seen of each


class Scenes(Images):
    """`count` pictures of `size` x `size` pixels.

    Args:
        images_per_instance: consecutive pictures that show the same instance.
    """

    def __init__(self, count: int, *, size: int = 64, seed: int = 0, images_per_instance: int = 1) -> None:
        if count < 1 or size < 16 or images_per_instance < 1:
            raise ValueError(
                f"scenes: {count} pictures of {size} pixels, {images_per_instance} an instance; "
                "wanted at least 1 picture, 16 pixels, 1 an instance"
            )
        super().__init__(count)
        self.size, self.seed, self.images_per_instance = size, seed, images_per_instance
        self.classes = list(FINE)
        self._kept: NDArray[np.uint8] | None = None  # (n, S, S, 3)

    def keep(self) -> "Scenes":
        """Renders all pictures now and keeps their pixels in memory; workers forked later share them."""
        self._kept = np.stack([self.scene(i).pixels for i in range(len(self))])
        return self

    def name(self, i: int) -> str:
        return f"scenes:{self.seed}:{i}"

    def load(self, i: int) -> Tensor:
        pixels = self.scene(i).pixels if self._kept is None else self._kept[i]
        return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()

    def content(self) -> str:
        return self.state()

    def state(self) -> str:
        return f"{self.fingerprint()} {self.size} {self.images_per_instance}"

    def labels(self) -> NDArray[np.int64]:
        return self.fine_labels()

    def fine_labels(self) -> NDArray[np.int64]:
        """(n,) position in FINE."""
        return self.instances() % len(FINE)

    def coarse_labels(self) -> NDArray[np.int64]:
        """(n,) position in COARSE."""
        return COARSE_OF_FINE[self.fine_labels()]

    def instances(self) -> NDArray[np.int64]:
        """(n,) number of what is shown; equal numbers, the same things."""
        return np.arange(len(self)) // self.images_per_instance

    def instance(self, i: int) -> int:
        return i // self.images_per_instance

    def mask(self, i: int) -> NDArray[np.uint8]:
        """(S, S) position in MASK_CLASSES."""
        return self.scene(i).mask

    def boxes(self, i: int) -> NDArray[np.float32]:
        """(things, 4) top, left, height, width in pixels."""
        return self.scene(i).boxes

    def scene(self, i: int) -> Scene:
        """Picture i with its truth."""
        kind = KINDS[self.instance(i) % len(KINDS)]
        looks = np.random.default_rng([self.seed, 0, self.instance(i)])
        mood = random_mood(looks)
        things = [
            Thing(kind.draw(looks), random_colours(looks, mood), kind.material, random_finish(looks))
            for _ in range(int(looks.choice(list(SCALE))))
        ]
        view = np.random.default_rng([self.seed, 1, i])
        behind = backdrop(view, self.size, mood)
        painting = paint(behind.pixels, things, _poses(view, len(things), kind.size))
        lit = lighting(view, self.size)
        grain = 0.02 * (view.random((self.size, self.size, 1), np.float32) - 0.5)
        pixels = (np.clip(painting.pixels * lit + grain, 0, 1) * 255 + 0.5).astype(np.uint8)
        coarse = COARSE_OF_FINE[self.instance(i) % len(KINDS)]
        mask = np.where(painting.seen, len(BACKDROPS) + coarse, behind.classes).astype(np.uint8)
        return Scene(pixels, mask, painting.boxes)


def _poses(random: Random, count: int, size: float) -> list[Pose]:
    """Of so many things of a size, far from each other, those lower in the picture nearer and so later."""
    light = random.uniform(-2.6, -0.5)  # from above
    places: list[NDArray[np.float64]] = []
    for _ in range(count):
        tries = random.uniform(0.14, 0.86, (6, 2))
        gaps = [min([float(np.abs(place - other).max()) for other in places], default=1.0) for place in tries]
        places.append(tries[int(np.argmax(gaps))])
    places.sort(key=lambda place: float(place[1]))
    return [
        Pose(
            x=float(x),
            y=float(y),
            scale=random.uniform(0.8, 1.1) * SCALE[count] * size,
            turn=random.uniform(-0.3, 0.3),
            mirrored=bool(random.random() < 0.5),
            light=light,
        )
        for x, y in places
    ]
