"""Redundancy reduction: each dimension agrees with itself across views, and with no other."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from polygrain.distributed import sum_with_gradient, world_size
from polygrain.losses.redundancy import barlow, cross_correlation
from polygrain.losses.vicreg import full_precision
from polygrain.objectives.base import DeadValue, Objective
from polygrain.objectives.vicreg import spread_of_unit_vectors
from polygrain.parts.heads import mlp
from polygrain.schedules import Time
from polygrain.views import Crops, Encoding

ALIKE = DeadValue(
    low=0.0,
    high=0.01,
    meaning="the embeddings point the same way for all images",
    mend="lower the learning rate, lengthen the warm-up, or raise the batch size",
)


class RedundancyReduction(Objective):
    """The cross-correlation of views, normed over the batch of all ranks, is the identity.

    (Barlow Twins, arXiv:2103.03230, eq. 1 and 2.) The correlation is summed over ranks with a backward pass that
    sums too, so that several ranks train as one does. The released code's sum has the identity for its backward
    pass: averaged over W ranks, its gradient is 1/W of this one. Of more than two views the mean over pairs counts.

    Args:
        widths: of the projector, its input included.
        off_diagonal: lambda, the weight of the correlations between dimensions.
    """

    granularity = "instance"
    least_images = 2  # one image has no variance

    def __init__(self, widths: Sequence[int], *, off_diagonal: float) -> None:
        super().__init__()
        self.projector = mlp(widths, activation="relu", norm="batch", bias=False, last_bias=False)
        self.norm = nn.BatchNorm1d(widths[-1], affine=False)
        self.off_diagonal = off_diagonal
        self.dead_values = {"embedding_std": ALIKE}

    def forward(self, student: Sequence[Encoding], teacher: Sequence[Encoding], time: Time) -> dict[str, Tensor]:
        embeddings = [full_precision(self.projector(encoding.pooled)) for encoding in student]  # V of (n, D)
        with torch.autocast(embeddings[0].device.type, enabled=False):
            normed = [self.norm(embedding) for embedding in embeddings]
        images = len(normed[0]) * world_size()
        parts = [
            barlow(sum_with_gradient(cross_correlation(x, y, images))) for x, y in itertools.combinations(normed, 2)
        ]
        self.gauges = {"embedding_std": spread_of_unit_vectors(embeddings[0])}
        return {
            "invariance": torch.stack([part.invariance for part in parts]).mean(),
            "redundancy": self.off_diagonal * torch.stack([part.redundancy for part in parts]).mean(),
        }

    def refuses(self, student: Sequence[Crops], teacher: Sequence[Crops]) -> str | None:
        views = sum(crops.count for crops in student)
        if views < 2:
            return f"it correlates at least two views of an image; this method's student sees {views}"
        return None
