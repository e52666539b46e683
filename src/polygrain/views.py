"""What travels between the floors: requests for crops, the crops, and what an encoder makes of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Mask(Protocol):
    """Which patches of a crop are hidden, drawn for one crop; frozen, since requests are compared and hashed."""

    def __call__(self, random: np.random.Generator) -> NDArray[np.bool_]:
        """(N,), row-major."""


@dataclass(frozen=True, kw_only=True)
class Crops:
    """A method's request for `count` square crops of every image.

    Args:
        name: the key under which the method finds these views ("teacher", "student", "local" ...).
        size: side of the crop after resizing, in pixels.
        scale: range of the crop's share of the image area.
        recipes: names of photometric recipes; crop j gets `recipes[j % len(recipes)]`.
        strong_recipe: recipe of the strongly augmented alternative, drawn with probability `strong_probability`.
        strong_together: one draw decides for all crops of this request, instead of one per crop.
        blur_scale: factor on the sigma of blurs, which the recipes give for crops of 224 pixels.
        jigsaw: the crops are pieces of one random crop, as of a puzzle: each lies at a random place within its own cell
            of a square grid, and they come in random order. `scale` is that of the whole, `count` a square number.
        mask: draws what an encoder that hides patches is not shown of each crop.
    """

    name: str
    count: int
    size: int
    scale: tuple[float, float]
    recipes: tuple[str, ...]
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    strong_recipe: str | None = None
    strong_probability: float = 0.0
    strong_together: bool = False
    blur_scale: float = 1.0
    jigsaw: bool = False
    mask: Mask | None = None


class View(NamedTuple):
    """One crop of every image of a batch."""

    pixels: Tensor  # (B, 3, H, W), normalised
    box: Tensor  # (B, 4) top, left, height, width, in source-image pixels
    flipped: Tensor  # (B,) bool, mirrored left-right after the crop
    strong: Tensor  # (B,) bool, strongly augmented
    image: Tensor  # (B,) long, position of the source image in the dataset
    hidden: Tensor | None = None  # (B, N) bool, row-major patches to hide from an encoder that hides

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "View":
        moved = (field if field is None else field.to(device, non_blocking=non_blocking) for field in self)
        return View._make(moved)


class Encoding(NamedTuple):
    """One view as one encoder sees it."""

    view: View
    pooled: Tensor  # (B, D) class token, or mean over positions
    patches: Tensor  # (B, N, D) one vector per patch, row-major, after the final norm
    centres: Tensor  # (B, N, 2) y, x of those patches, in source-image pixels (flip taken into account)
    unnormed: Tensor  # (B, D) mean over all tokens, class token included, before the final norm
    hidden: Tensor | None = None  # (B, N_all) bool, patches that the encoder was not shown
    attention: Tensor | None = None  # (B, N) of the class token to each patch in the last block, mean over heads

    def detach(self) -> "Encoding":
        return self._replace(
            pooled=self.pooled.detach(), patches=self.patches.detach(), unnormed=self.unnormed.detach()
        )


def join(views: Sequence[View]) -> View:
    """Views of one size as one, all images of the first before those of the second.

    Where only some hide patches, nothing is hidden in the others.
    """
    masks = [view.hidden for view in views]
    known = next((mask for mask in masks if mask is not None), None)
    if known is not None:
        masks = [known.new_zeros(len(v.image), known.shape[1]) if v.hidden is None else v.hidden for v in views]
    shown = (torch.cat(fields) for fields in zip(*(view[:5] for view in views), strict=True))
    return View._make((*shown, None if known is None else torch.cat(masks)))  # type: ignore[arg-type]  # all known


def patch_centres(box: Tensor, flipped: Tensor, rows: int, columns: int) -> Tensor:
    """Centres of a grid of patches laid over each crop, in source-image pixels.

    Cell (r, c) of an unflipped crop lies at top + (r + 1/2) height / rows, left + (c + 1/2) width / columns;
    in a flipped crop column c shows what column (columns - 1 - c) would have shown (`reference`: VICRegL,
    arXiv:2210.01571, location-based matching).

    Args:
        box: (B, 4) top, left, height, width.
        flipped: (B,) bool.

    Returns:
        (B, rows * columns, 2) y, x; float32, row-major.
    """
    top, left, height, width = box.float().unbind(1)  # each (B,)
    row = (torch.arange(rows, device=box.device, dtype=torch.float32) + 0.5) / rows
    column = (torch.arange(columns, device=box.device, dtype=torch.float32) + 0.5) / columns
    y = top[:, None] + row * height[:, None]  # (B, rows)
    across = torch.where(flipped[:, None], 1 - column, column)  # (B, columns)
    x = left[:, None] + across * width[:, None]
    y = y[:, :, None].expand(-1, rows, columns)
    x = x[:, None, :].expand(-1, rows, columns)
    return torch.stack([y, x], dim=-1).flatten(1, 2)


def grid_shape(patches: int, pixels: Tensor) -> tuple[int, int]:
    """Rows and columns of a map of `patches` cells over `pixels` (B, 3, H, W), keeping the aspect of the crop.

    Raises:
        ValueError: when no grid of that aspect has so many cells.
    """
    height, width = pixels.shape[-2:]
    rows = round(math.sqrt(patches * height / width))
    if rows == 0 or patches % rows:
        raise ValueError(f"{patches} patches do not form a grid over a {height}x{width} crop")
    return rows, patches // rows
