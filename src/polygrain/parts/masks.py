"""Masks: which patches of a crop the student is not shown."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from polygrain.views import Encoding, View

TRIES = 10  # for each block


@dataclass(frozen=True, kw_only=True)
class BlockMask:
    """Rectangles, added until a share of the patches is hidden or ten tries in a row do not fit.

    A block's area is uniform from (side // 3)^2 to what is left of the budget, its aspect log-uniform from `aspect` to
    1 / `aspect`; the budget is never exceeded. (iBOT, arXiv:2111.07832, official code da316d8, `loader.py`; BEiT,
    arXiv:2106.08254.)

    Args:
        side: of the square grid of patches.
        probability: of hiding anything at all.
        ratio: range of the share to hide.
    """

    side: int
    probability: float = 0.5
    ratio: tuple[float, float] = (0.1, 0.5)
    aspect: float = 0.3

    def __call__(self, random: np.random.Generator) -> NDArray[np.bool_]:
        hidden = np.zeros((self.side, self.side), dtype=bool)
        if random.random() >= self.probability:
            return hidden.ravel()
        left = random.uniform(*self.ratio) * self.side**2
        while left > 0 and (gain := self._add_block(hidden, left, random)):
            left -= gain
        return hidden.ravel()

    def _add_block(self, hidden: NDArray[np.bool_], left: float, random: np.random.Generator) -> int:
        """Hides one more block, and says how many patches it hid; 0 when none fitted."""
        least = (self.side // 3) ** 2
        steepest = -math.log(self.aspect)
        for uniform, slope in random.random((TRIES, 2)):
            area, aspect = least + uniform * (left - least), math.exp((2 * slope - 1) * steepest)
            height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if height >= self.side or width >= self.side:
                continue
            top, start = random.integers(0, (self.side - height + 1, self.side - width + 1))
            block = hidden[top : top + height, start : start + width]
            new = block.size - int(block.sum())
            if 0 < new <= left:
                block[:] = True
                return new
        return 0


@dataclass(frozen=True, kw_only=True)
class RandomMask:
    """Exactly as many patches of every crop, each set of them equally likely (MAE, arXiv:2111.06377).

    Args:
        patches: their number N; int(N (1 - ratio)) of them are shown.
        ratio: share to hide.
    """

    patches: int
    ratio: float = 0.75

    @property
    def shown(self) -> int:
        return int(self.patches * (1 - self.ratio))

    def __call__(self, random: np.random.Generator) -> NDArray[np.bool_]:
        order = random.random(self.patches).argsort()
        hidden = np.ones(self.patches, dtype=bool)
        hidden[order[: self.shown]] = False
        return hidden


@dataclass(frozen=True, kw_only=True)
class CoinMask:
    """Each patch with the same probability, on its own."""

    patches: int
    probability: float

    def __call__(self, random: np.random.Generator) -> NDArray[np.bool_]:
        return random.random(self.patches) < self.probability


@dataclass(frozen=True, kw_only=True)
class LeastAttended:
    """Of what views hide, only patches to which the teacher's class token attends least (MST, arXiv:2106.05656).

    The teacher's views are the student's first ones, and the teacher is watched.

    Args:
        share: of the patches of a view; the others are always shown.
    """

    share: float

    def __call__(self, views: Sequence[View], teacher: Sequence[Encoding]) -> list[View]:
        narrowed = list(views)
        for i, (view, seen) in enumerate(zip(views, teacher, strict=False)):  # small crops have no teacher
            assert view.hidden is not None and seen.attention is not None
            narrowed[i] = view._replace(hidden=view.hidden & least_attended(seen.attention, self.share))
        return narrowed


def least_attended(attention: Tensor, share: float) -> Tensor:
    """(B, N) bool: the int(share N) patches of each image with the lowest attention (B, N)."""
    places = attention.argsort(dim=1, stable=True).argsort(dim=1)
    return places < int(share * attention.shape[1])
