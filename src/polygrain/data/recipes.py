"""Photometric recipes by name: which random changes of colour and sharpness a crop gets, and how often."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from polygrain.data.randaugment import OPERATIONS, usable
from polygrain.views import Crops


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What may happen to the colours of one crop, in this order.

    Args:
        jitter: largest changes of brightness, contrast, saturation (factors 1 - j to 1 + j) and hue (turns, -j to j),
            applied in random order.
        blur_sigma: range of the Gaussian's sigma, in pixels of the finished crop.
        solarise_probability: values of 128 and above become 255 minus themselves.
        rand_augment: two random operations. "image": timm's "rand-m9-mstd0.5-inc1", drawn without replacement, on the
            uncropped image. "crop": the older "rand-n2-m10-mstd0.5", drawn with replacement, on the finished crop,
            after its blur and before it may turn gray.
        erase_probability: of one box of the finished crop being replaced by N(0, 1) noise before normalisation.
    """

    jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    jitter_probability: float = 0.0
    gray_probability: float = 0.0
    blur_probability: float = 0.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarise_probability: float = 0.0
    rand_augment: Literal["image", "crop"] | None = None
    erase_probability: float = 0.0


_BYOL = Recipe(jitter=(0.4, 0.4, 0.2, 0.1), jitter_probability=0.8, gray_probability=0.2)
_ALWAYS_BLURRED = replace(_BYOL, blur_probability=1.0)
_MOCO = Recipe(jitter=(0.4, 0.4, 0.4, 0.1), jitter_probability=0.8, gray_probability=0.2, blur_probability=0.5)
_SOMETIMES_SOLARISED = replace(_BYOL, blur_probability=0.1, solarise_probability=0.2)

RECIPES = {
    # BYOL, arXiv:2006.07733, app. B; VICReg, VICRegL and Barlow Twins are identical
    "byol_a": _ALWAYS_BLURRED,
    "byol_b": _SOMETIMES_SOLARISED,
    # MoCo v2, arXiv:2003.04297; SimSiam and PCL v2 are identical
    "moco2": _MOCO,
    # SimCLR, arXiv:2002.05709, app. A
    "simclr": replace(_MOCO, jitter=(0.8, 0.8, 0.8, 0.2)),
    # InfoMin, arXiv:2005.10243: official code 84f94ea, `datasets/util.py`, "D"
    "infomin": replace(_MOCO, jitter=(0.8, 0.8, 0.8, 0.2), rand_augment="crop"),
    # MoCo-v3, arXiv:2104.02057: BYOL's, mirrored last, which changes nothing
    "moco3_a": _ALWAYS_BLURRED,
    "moco3_b": _SOMETIMES_SOLARISED,
    # SwAV, arXiv:2006.09882, and DeepCluster-v2: colours as SimCLR
    "swav": replace(_MOCO, jitter=(0.8, 0.8, 0.8, 0.2)),
    # DINO, arXiv:2104.14294, and the weak crops of Mugs
    "dino_1": _ALWAYS_BLURRED,
    "dino_2": _SOMETIMES_SOLARISED,
    "dino_local": replace(_BYOL, blur_probability=0.5),
    # MAE, arXiv:2111.06377: cropped and mirrored, no more
    "mae": Recipe(),
    # supervised training: ResNet-50 (pytorch/examples) and DeiT, arXiv:2012.12877
    "supervised": Recipe(),
    "deit": Recipe(rand_augment="image", erase_probability=0.25),
    # the strong crops of Mugs, arXiv:2203.14415
    "mugs_strong": Recipe(rand_augment="image", erase_probability=0.25),
}


def find_recipe(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        ValueError: when there is none.
    """
    if name not in RECIPES:
        close = difflib.get_close_matches(name, RECIPES, n=1)
        meant = f"did you mean {close[0]!r}? " if close else ""
        raise ValueError(f"unknown photometric recipe {name!r}; {meant}the recipes are {', '.join(RECIPES)}")
    return RECIPES[name]


def for_channels(recipe: Recipe, channels: int) -> Recipe:
    """What is left of a recipe where channels are no colours; RandAugment keeps its `usable` operations."""
    if channels == 3:
        return recipe
    brightness, contrast, _, _ = recipe.jitter
    return replace(recipe, jitter=(brightness, contrast, 0.0, 0.0), gray_probability=0.0, solarise_probability=0.0)


def switched_off(recipe: str, channels: int) -> list[str]:
    """What a recipe does to colours and not to images of so many channels.

    Raises:
        ValueError: when there is no recipe of that name.
    """
    whole, left = find_recipe(recipe), for_channels(find_recipe(recipe), channels)
    jitters = whole.jitter_probability > 0
    off = {
        "saturation": jitters and whole.jitter[2] != left.jitter[2],
        "hue": jitters and whole.jitter[3] != left.jitter[3],
        "grayscale": whole.gray_probability != left.gray_probability,
        "solarisation": whole.solarise_probability != left.solarise_probability,
    }
    operations = [name for name in OPERATIONS if whole.rand_augment is not None and name not in usable(channels)]
    return [name for name, gone in off.items() if gone] + [f"RandAugment's {name}" for name in operations]


def switched_off_in(requests: Sequence[Crops], channels: int) -> list[str]:
    """The same for all recipes of some crops, each thing once."""
    names = [name for request in requests for name in (*request.recipes, request.strong_recipe) if name]
    return list(dict.fromkeys(thing for name in names for thing in switched_off(name, channels)))
