"""VICRegL's local matching with SimCLR's criterion: matched regions find each other among those of other images."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from polygrain.distributed import gather_with_gradient
from polygrain.losses.in_batch import nt_xent
from polygrain.objectives.in_batch import EMBEDDINGS_ALIKE, of_this_rank
from polygrain.objectives.local import Local
from polygrain.objectives.vicreg import spread_of_unit_vectors
from polygrain.parts.heads import Norm
from polygrain.schedules import Time
from polygrain.views import Encoding

Negatives = Literal["slot", "flat"]


class LocalContrast(Local):
    """NT-Xent of matched patch vectors instead of VICReg's criterion; the matching is that of `Local`.

    VICRegL's paper reports this ablation as SimCLR-L (arXiv:2210.01571) without code, temperature or negatives; those
    are choices made here. The pairs of a search are averaged, searches are weighted as in `Local`, and those by
    feature and by location are added.

    Args:
        widths, norm, num_matches, feature, location, all_feature_matches, small_crops, flip_grid: as in `Local`.
        negatives: the vectors of the same "slot" in other images, as VICRegL takes variances over the images of a slot;
            or "flat", of all slots of other images: as many times the cost as there are slots.
    """

    def __init__(
        self,
        widths: Sequence[int],
        *,
        norm: Norm,
        temperature: float,
        negatives: Negatives = "slot",
        num_matches: tuple[int, int] | None = None,
        feature: bool = True,
        location: bool = True,
        all_feature_matches: bool = True,
        small_crops: bool = False,
        flip_grid: bool = True,
    ) -> None:
        super().__init__(
            widths,
            norm=norm,
            num_matches=num_matches,
            feature=feature,
            location=location,
            all_feature_matches=all_feature_matches,
            small_crops=small_crops,
            flip_grid=flip_grid,
        )
        self.temperature = temperature
        self.negatives = negatives
        self.dead_values = {"embedding_std": EMBEDDINGS_ALIKE}

    def forward(self, student: Sequence[Encoding], teacher: Sequence[Encoding], time: Time) -> dict[str, Tensor]:
        views = self._large_first(student)
        embeddings = [self.project(view.patches) for view in views]  # V of (n, P, D)
        maps = [gather_with_gradient(embedding) for embedding in embeddings]  # V of (N, P, D)
        plan = self._plan([view.patches.shape[1] for view in views])
        matches = self._match(views, embeddings, list(plan))
        own, flat = of_this_rank(embeddings[0]), self.negatives == "flat"
        terms = []
        for matching, weight in plan.items():
            inputs, candidates = matches[matching]
            x, y = unit_rows(maps[matching.source], inputs), unit_rows(maps[matching.target], candidates)
            terms.append(weight * nt_xent(x, y, self.temperature, own, across_slots=flat).loss)
        self.gauges = {"embedding_std": spread_of_unit_vectors(maps[0])}
        return {"nt_xent": torch.stack(terms).sum()}


def unit_rows(rows: Tensor, slots: Tensor) -> Tensor:
    """The vectors (N, M, D) of the slots (N, M) among rows (N, P, D), at length 1."""
    return F.normalize(rows.gather(1, slots[..., None].expand(-1, -1, rows.shape[2])), dim=2)
