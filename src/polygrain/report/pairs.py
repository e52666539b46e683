"""Two crops of an image, and which patches of them match."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from polygrain.data.cutting import cut
from polygrain.data.draws import draw
from polygrain.data.photometric import Normalisation
from polygrain.evaluate.retrieval.correspondence import RADII, Places, chance, hits, places
from polygrain.losses.matching import Matches, feature_distances, location_distances, nearest
from polygrain.parts.encoder import Features
from polygrain.views import Crops, View, patch_centres


class Describes(Protocol):
    """An encoder, or whatever else makes patch vectors of pixels."""

    def features(self, pixels: Tensor) -> Features: ...


class Shown(NamedTuple):
    """One image, its views, and what matches between the first two of the largest size."""

    image: Tensor  # (C, H, W) uint8
    views: Mapping[str, Sequence[View]]  # of this image alone
    pair: tuple[View, View]
    grids: tuple[tuple[int, int], tuple[int, int]]  # rows, columns of the patches of each
    matches: Mapping[str, Matches]  # by criterion, of this image alone
    distances: Mapping[str, Tensor]  # (1, P, Q) by criterion, of every patch of the one to every patch of the other
    true: Places  # where the centres of the patches of the one lie in the grid of the other


@torch.no_grad()
def look(
    encoder: Describes,
    image: Tensor,
    crops: Sequence[Crops],
    *,
    seed: int,
    number: int,
    normalisation: Normalisation,
    project: Callable[[Tensor], Tensor] | None,
    kept: int,
    shared: bool = False,
) -> Shown:
    """Cuts the views of one image and matches the first two of the largest size, each patch once.

    Args:
        shared: only patches of the first view whose centre the second one shows.
    """
    numbers = draw(crops, *image.shape[1:], seed=seed, epoch=0, image=number, channels=len(image))
    views = cut([image], [numbers], normalisation)
    largest = max(request.size for request in crops)
    large = [view for request in crops if request.size == largest for view in views[request.name]]
    if len(large) < 2:
        raise ValueError(f"matches need two views of the largest size ({largest} px); these crops have {len(large)}")
    first, second = large[:2]
    a, b = encoder.features(first.pixels), encoder.features(second.pixels)
    vectors = [side.patches if project is None else project(side.patches) for side in (a, b)]
    centres = [patch_centres(view.box, view.flipped, *side.grid) for view, side in ((first, a), (second, b))]
    tables = {"location": location_distances(*centres), "feature": feature_distances(*vectors)}
    true = places(centres[0], second.box, second.flipped, b.grid)
    rows = true.inside[0].nonzero()[:, 0] if shared else torch.arange(a.patches.shape[1])
    matches = {}
    for name, table in tables.items():
        found = nearest(table[:, rows], min(kept, len(rows)))
        matches[name] = Matches(rows[found.inputs], found.candidates)
    return Shown(image, views, (first, second), (a.grid, b.grid), matches, tables, true)


def in_words(shown: Sequence[Shown]) -> str:
    """How many patches find their place by the distance of features: PCK at 0, 1 and 2 cells, and its chance."""
    inside = sum(int(one.true.inside.sum()) for one in shown)
    if not inside:
        return "The crops of these images share no patch."
    parts = []
    for radius in RADII:
        right, by_chance, mutual = 0.0, 0.0, 0
        for one in shown:
            table, grid, kept = one.distances["feature"], one.grids[1], one.true.inside
            nearest = table.argmin(2)
            right += float(hits(nearest, one.true, grid, radius)[kept].sum())
            by_chance += float(chance(one.true, grid, radius)[kept].sum())
            back = table.argmin(1).gather(1, nearest)
            mutual += int((back == torch.arange(back.shape[1]))[kept].sum())
        parts.append(f"{right / inside:.0%} within {radius} (chance {by_chance / inside:.0%})")
    return (
        f"Of the {inside:,} patches that both crops of {len(shown)} images show, the nearest by features lies so many "
        f"cells from the right place (PCK): {', '.join(parts)}; {mutual / inside:.0%} are nearest both ways. "
        "So few images are an illustration: the region bar of the profile has the interval."
    )
