"""Pairs of pictures with known corresponding points: two crops of one image, or two images with keypoints."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from polygrain.data.cutting import cut
from polygrain.data.draws import draw
from polygrain.data.images import Images
from polygrain.evaluate.features import evaluating
from polygrain.evaluate.labelled import constant
from polygrain.evaluate.models import Model
from polygrain.evaluate.retrieval.correspondence import RADII, Matches, Places, chance, hits, match, places
from polygrain.evaluate.retrieval.naming import finder, last_part, whole
from polygrain.evaluate.retrieval.squeezed import squeezed
from polygrain.evaluate.settings.retrieval import TwoCrops
from polygrain.parts.encoder import Features
from polygrain.views import Crops, patch_centres

BATCH = 32  # images, whose decoded pixels are held together
METRICS = (*(f"PCK@{radius}" for radius in RADII), *(f"chance@{radius}" for radius in RADII), "mutual")


class Compared(NamedTuple):
    """Matches from one batch of pictures to another."""

    found: Tensor  # (B, metrics) means over the points that both show, NaN where there is none
    grid: tuple[int, int]  # rows, columns of the patches
    alike: bool  # whether all patches of a picture have the same features


class Pair(NamedTuple):
    """Two images and points that show the same."""

    source: int
    target: int
    source_points: Tensor  # (N, 2) y, x in pixels
    target_points: Tensor  # (N, 2)


def compare_crops(
    model: Model, images: Images, chosen: NDArray[np.int64], size: int, how: TwoCrops, *, seed: int, device: str
) -> Iterator[Compared]:
    """Two random crops of each image, whose numbers depend on the seed and the image; those that cannot be decoded are
    left out."""
    request = Crops(name="correspond", count=2, size=size, scale=how.scale, recipes=(how.recipe,))
    for start in range(0, len(chosen), BATCH):
        read = [(i, images.read(int(i))) for i in chosen[start : start + BATCH]]
        whole = {int(i): pixels.image for i, pixels in read if pixels.source == i}
        if not whole:
            continue
        draws = [
            draw([request], *image.shape[1:], seed=seed, epoch=0, image=i, channels=len(image))
            for i, image in whole.items()
        ]
        first, second = cut([*whole.values()], draws, model.normalisation)[request.name]
        one, other = (_features(model, view.pixels, device) for view in (first, second))
        true = places(patch_centres(first.box, first.flipped, *one.grid), second.box, second.flipped, one.grid)
        yield _compared(match(one.patches.cpu(), other.patches.cpu()), true, one)


def compare_keypoints(model: Model, images: Images, pairs: list[Pair], size: int, device: str) -> Iterator[Compared]:
    """Keypoints of two images, each squeezed to a square: the patch of one in which a point lies is matched.

    Raises:
        ValueError: when an image cannot be decoded, or a point lies outside it.
    """
    for pair in pairs:
        read = [images.read(i) for i in (pair.source, pair.target)]
        for position, pixels in zip((pair.source, pair.target), read, strict=True):
            if pixels.source != position:
                raise ValueError(f"{images.name(position)!r} cannot be decoded, and keypoints name it")
        views = torch.stack([squeezed(pixels.image, size, model.normalisation) for pixels in read])
        seen = _features(model, views, device)
        cells = []
        for points, pixels in zip((pair.source_points, pair.target_points), read, strict=True):
            box = torch.tensor([[0, 0, *pixels.image.shape[1:]]]).float()
            cells.append(places(points[None], box, torch.tensor([False]), seen.grid))
            if not cells[-1].inside.all():
                y, x = points[~cells[-1].inside[0]][0].tolist()
                name, shape = images.name(pixels.source), tuple(pixels.image.shape[1:])
                raise ValueError(f"keypoint x={x:g}, y={y:g} lies outside {name!r} of {shape[1]}x{shape[0]} pixels")
        matches = match(seen.patches[:1].cpu(), seen.patches[1:].cpu())
        at = cells[0].rows * seen.grid[1] + cells[0].columns  # (1, N)
        yield _compared(Matches(*(field.gather(1, at) for field in matches)), cells[1], seen)


def read_pairs(path: str | os.PathLike[str], images: Images) -> list[Pair]:
    """Reads {"pairs": [{"source": NAME, "target": NAME, "source_points": [[x, y], ...], "target_points": ...}, ...]}.

    Points are in pixels of the images as they are; names are those of files, with or without their folder.

    Raises:
        ValueError: when the file is not like that, or names an image that is not there.
    """
    find = finder(images, whole, last_part)
    pairs = []
    try:
        content = json.loads(Path(path).read_text())["pairs"]
        for number, entry in enumerate(content):
            source, target = find(entry["source"]), find(entry["target"])
            points = [torch.tensor(entry[side], dtype=torch.float32).flip(1) for side in SIDES]
            if source is None or target is None:
                missing = entry["source" if source is None else "target"]
                raise ValueError(f"pair {number} names {missing!r}, which is not among the images")
            if points[0].shape != points[1].shape or points[0].shape[1:] != (2,):
                raise ValueError(
                    f"pair {number} has {len(points[0])} and {len(points[1])} points; give as many, as x, y"
                )
            pairs.append(Pair(source, target, points[0], points[1]))
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(f"{os.fspath(path)!r} is not a list of pairs: {error}") from error
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)!r}: {error}") from error
    if not pairs:
        raise ValueError(f"{os.fspath(path)!r} lists no pair")
    return pairs


SIDES = ("source_points", "target_points")


@torch.no_grad()
def _features(model: Model, views: Tensor, device: str) -> Features:
    """Raises ValueError when a feature is not finite."""
    with evaluating(model.encoder):
        seen = model.encoder.features(views.to(device))
    if not torch.isfinite(seen.patches).all():
        raise ValueError("the encoder's features are not finite; its weights may be damaged")
    return seen


def _compared(matches: Matches, true: Places, seen: Features) -> Compared:
    counted = [hits(matches.nearest, true, seen.grid, radius) for radius in RADII]
    counted += [chance(true, seen.grid, radius) for radius in RADII]
    values = torch.stack([*(each.float() for each in counted), matches.mutual.float()], dim=2)  # (B, N, metrics)
    shown = true.inside[..., None]
    means = torch.where(shown, values, 0).sum(dim=1) / shown.sum(dim=1)
    return Compared(means, seen.grid, any(constant(patches) for patches in seen.patches))
