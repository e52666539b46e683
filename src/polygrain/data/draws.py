"""The numbers of every crop of an image: where it lies, and what happens to its colours.

Every number has its own place in a table of uniform numbers from a counter-based generator, keyed by the seed, the
name of the request, the epoch and the image. So an image gets the same views whatever the number of workers or ranks,
after a restart, and whatever else is asked for; and crop j of a request does not depend on how many follow it.
"""

import zlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from polygrain.data.boxes import TRIES, Floats, Integers, erased_boxes, piece_boxes, resized_crop_boxes
from polygrain.data.randaugment import OPERATIONS, usable
from polygrain.data.recipes import find_recipe, for_channels
from polygrain.views import Crops

Flags = NDArray[np.bool_]

MASKS = 2**32  # the first stream of masks; those of noise lie below
PIECES = 2**33  # the stream of puzzles
MAGNITUDE, OLDER_MAGNITUDE, MAGNITUDE_STD, LARGEST_MAGNITUDE = 9.0, 10.0, 0.5, 10.0  # of RandAugment's operations

# The magnitude with which an operation does what that of the older set ("rand-m10") does at a level: there Posterize
# and Solarize grow weaker with it, and factors grow from 0.1 to 1.9.
OLDER: dict[str, Callable[[float], float]] = {
    "Posterize": lambda level: 2.5 * (4 - int(level / 10 * 4)),
    "Solarize": lambda level: 10 * (256 - int(level / 10 * 256)) / 256,
    **dict.fromkeys(("Color", "Contrast", "Brightness", "Sharpness"), lambda level: 2 * level - 10),
}


class Key(NamedTuple):
    """What the numbers of an image depend on."""

    seed: int
    epoch: int
    image: int


class Numbers(NamedTuple):
    """All there is to know of V crops."""

    box: Integers  # (V, 4) top, left, height, width, in source-image pixels
    flipped: Flags  # (V,) mirrored left-right after the crop
    strong: Flags  # (V,)
    jittered: Flags  # (V,)
    jitter: Floats  # (V, 4) factors of brightness, contrast, saturation; turns of hue
    jitter_order: Integers  # (V, 4) which of the four comes first, second ...
    gray: Flags  # (V,)
    blur: Floats  # (V,) sigma in pixels of the crop, 0 for none
    solarised: Flags  # (V,)
    operations: Integers  # (V, 2) of RandAugment in order, positions in OPERATIONS; -1 for none
    magnitudes: Floats  # (V, 2) 0..10, negative for the other direction
    late: Flags  # (V,) they are done to the finished crop, before it turns gray, not to the uncropped image
    bicubic: Flags  # (V, 2) how a geometric operation interpolates; bilinear otherwise
    erased: Integers  # (V, 4) top, left, height, width, in pixels of the crop; height 0 for none


class Draws(NamedTuple):
    """The numbers of all crops of one image, request after request."""

    requests: tuple[Crops, ...]
    key: Key
    numbers: Numbers


def draw(
    requests: Sequence[Crops], height: int, width: int, *, seed: int, epoch: int, image: int, channels: int = 3
) -> Draws:
    """Draws all crops of one image of `height` x `width` pixels.

    With other than three channels, what changes colours is switched off: see `recipes.switched_off`.

    Raises:
        ValueError: when a request names an unknown recipe.
    """
    requests, key = tuple(requests), Key(seed, epoch, image)
    plan = _plan(requests, channels)
    u = _uniform(requests, key)
    strong = u["strong"][plan.decides, 0] < plan.strong_probability
    odds = _Odds(*(field[strong.astype(np.int64), np.arange(len(strong))] for field in plan.odds))
    happens = u["happens"] < odds.happens  # (V, 6)
    jittered, gray, blurred, solarised, augmented, erased = happens.T
    operations, magnitudes = _operations(u, augmented, odds.late, _places(channels))
    low, high = odds.blur_sigma.T
    box = resized_crop_boxes(u["area"], u["ratio"], u["place"], plan.scale, plan.ratio, height, width)
    flipped = u["flip"][:, 0] < 0.5
    for request, rows in plan.puzzles:
        order, place = np.split(_generator(key, request.name, PIECES).random((request.count, 3)), [1], axis=1)
        box[rows] = piece_boxes(box[rows.start], order[:, 0].argsort(), place)
        flipped[rows] = flipped[rows.start]
    numbers = Numbers(
        box=box,
        flipped=flipped,
        strong=strong,
        jittered=jittered,
        jitter=np.array([1, 1, 1, 0]) + (2 * u["jitter"] - 1) * odds.jitter,
        jitter_order=u["jitter_order"].argsort(axis=1),
        gray=gray,
        blur=(low + u["blur"][:, 0] * (high - low)) * blurred,
        solarised=solarised,
        operations=operations,
        magnitudes=magnitudes,
        late=odds.late,
        bicubic=u["bicubic"] < 0.5,
        erased=erased_boxes(u["erased_area"], u["erased_ratio"], u["erased_place"], plan.size) * erased[:, None],
    )
    return Draws(requests, key, numbers)


def noise(key: Key, name: str, crop: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """N(0, 1) for the erased box of one crop of the request `name`."""
    return _generator(key, name, stream=1 + crop).standard_normal(shape, dtype=np.float32)


def hidden_patches(key: Key, request: Crops, crop: int) -> Flags:
    """(N,) which patches the mask of this request hides in one of its crops."""
    assert request.mask is not None
    return request.mask(_generator(key, request.name, stream=MASKS + crop))


def _generator(key: Key, name: str, stream: int) -> np.random.Generator:
    place = [0, key.image, key.epoch, stream]
    return np.random.Generator(np.random.Philox(key=[key.seed, zlib.crc32(name.encode())], counter=place))


@lru_cache(maxsize=4)
def _places(channels: int) -> Integers:
    """Of the operations to draw from, in OPERATIONS."""
    return np.array([OPERATIONS.index(name) for name in usable(channels)])


def _operations(u: dict[str, Floats], augmented: Flags, older: Flags, places: Integers) -> tuple[Integers, Floats]:
    """RandAugment's operations and signed magnitudes, (V, 2): two, each applied half of the time.

    They differ, but for the older set, which draws with replacement.
    """
    first = np.floor(u["operation"][:, 0] * len(places)).astype(np.int64)
    second = np.floor(u["operation"][:, 1] * np.where(older, len(places), len(places) - 1)).astype(np.int64)
    second += (second >= first) & ~older
    applied = (u["applied"] < 0.5) & augmented[:, None]
    operations = np.where(applied, places[np.stack([first, second], axis=1)], -1)
    normal = np.sqrt(-2 * np.log1p(-u["magnitude"])) * np.cos(2 * np.pi * u["angle"])  # Box and Muller
    middle = np.where(older, OLDER_MAGNITUDE, MAGNITUDE)[:, None]
    magnitudes = np.clip(middle + MAGNITUDE_STD * normal, 0, LARGEST_MAGNITUDE)
    magnitudes = np.where(u["direction"] < 0.5, -magnitudes, magnitudes)
    for crop, place in zip(*np.nonzero(older[:, None] & (operations >= 0)), strict=True):
        if older_level := OLDER.get(OPERATIONS[operations[crop, place]]):
            magnitudes[crop, place] = older_level(abs(magnitudes[crop, place]))
    return operations, magnitudes


_COLUMNS = {
    "area": TRIES,
    "ratio": TRIES,
    "place": 2,
    "flip": 1,
    "strong": 1,
    "happens": 6,
    "jitter": 4,
    "jitter_order": 4,
    "blur": 1,
    "operation": 2,
    "applied": 2,
    "magnitude": 2,
    "angle": 2,
    "direction": 2,
    "bicubic": 2,
    "erased_area": TRIES,
    "erased_ratio": TRIES,
    "erased_place": 2,
}
_ENDS = np.cumsum([*_COLUMNS.values()]).tolist()


def _uniform(requests: tuple[Crops, ...], key: Key) -> dict[str, Floats]:
    """Numbers in [0, 1) by purpose, each (V, columns)."""
    table = np.concatenate([_generator(key, r.name, stream=0).random((r.count, _ENDS[-1])) for r in requests])
    columns = zip(_COLUMNS.items(), _ENDS, strict=True)
    return {name: table[:, end - count : end] for (name, count), end in columns}


class _Odds(NamedTuple):
    """What the recipes say; in a plan (2, V, ...), for the weak and the strong alternative of each crop."""

    happens: Floats  # (V, 6) probabilities of jitter, gray, blur, solarisation, RandAugment, erasing
    jitter: Floats  # (V, 4)
    blur_sigma: Floats  # (V, 2)
    late: Flags  # (V,) RandAugment's older set, on the finished crop


class _Plan(NamedTuple):
    """What the requests say, one row a crop."""

    scale: Floats  # (V, 2)
    ratio: Floats  # (V, 2)
    size: Integers  # (V,)
    strong_probability: Floats  # (V,)
    decides: Integers  # (V,) the crop whose number says whether this one is strong
    odds: _Odds
    puzzles: tuple[tuple[Crops, slice], ...]  # requests for pieces, and their rows


@lru_cache(maxsize=16)
def _plan(requests: tuple[Crops, ...], channels: int) -> _Plan:
    rows = [(request, j) for request in requests for j in range(request.count)]
    names = [[request.recipes[j % len(request.recipes)] for request, j in rows]]
    names.append([r.strong_recipe or weak for (r, _), weak in zip(rows, names[0], strict=True)])
    recipes = [[for_channels(find_recipe(name), channels) for name in alternative] for alternative in names]
    happens = [
        [
            (
                recipe.jitter_probability,
                recipe.gray_probability,
                recipe.blur_probability,
                recipe.solarise_probability,
                float(recipe.rand_augment is not None),
                recipe.erase_probability,
            )
            for recipe in alternative
        ]
        for alternative in recipes
    ]
    ends = np.cumsum([request.count for request in requests])
    blur_scale = np.array([request.blur_scale for request, _ in rows])[:, None]
    return _Plan(
        scale=np.array([request.scale for request, _ in rows]),
        ratio=np.array([request.ratio for request, _ in rows]),
        size=np.array([request.size for request, _ in rows]),
        strong_probability=np.array([r.strong_probability if r.strong_recipe else 0.0 for r, _ in rows]),
        decides=np.array([i - j if request.strong_together else i for i, (request, j) in enumerate(rows)]),
        odds=_Odds(
            happens=np.array(happens),
            jitter=np.array([[recipe.jitter for recipe in alternative] for alternative in recipes]),
            blur_sigma=np.array([[r.blur_sigma for r in alternative] for alternative in recipes]) * blur_scale,
            late=np.array([[r.rand_augment == "crop" for r in alternative] for alternative in recipes]),
        ),
        puzzles=tuple((r, slice(end - r.count, end)) for r, end in zip(requests, ends, strict=True) if r.jigsaw),
    )
