"""VICReg's criterion on one vector per image: the global half of VICRegL."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from polygrain.distributed import gather_with_gradient
from polygrain.losses.vicreg import full_precision, mean_invariance, mean_spread
from polygrain.objectives.base import DeadValue, Objective
from polygrain.parts.heads import Norm, mlp
from polygrain.schedules import Time
from polygrain.views import Crops, Encoding

Convention = Literal["vicreg", "vicregl"]


class Global(Objective):
    """Views of an image agree, and embeddings neither shrink nor correlate over images; no teacher, no negatives.

    Both views of a pair receive gradient. Batch norm of the expander, if any, sees one view at a time.

    Args:
        widths: of the expander, its input included.
        norm: of the expander's hidden layers; the authors take "batch" for ResNet and "layer" for ConvNeXt.
        covariance_of: "vicreg" adds up the covariance terms of two views, "vicregl" averages them, as the codes of
            the two papers do: at the same coefficient VICRegL's term weighs half (VICReg, arXiv:2105.04906, eq. 6;
            VICRegL, arXiv:2210.01571, eq. 1).
    """

    granularity = "instance"
    least_images = 2  # one image has no variance

    def __init__(
        self,
        widths: Sequence[int],
        *,
        norm: Norm,
        covariance_of: Convention = "vicregl",
        invariance: float = 25.0,
        variance: float = 25.0,
        covariance: float = 1.0,
    ) -> None:
        super().__init__()
        self.expander = mlp(widths, activation="relu", norm=norm, last_bias=False)
        self.invariance, self.variance = invariance, variance
        self.covariance = covariance * (2 if covariance_of == "vicreg" else 1)
        self.dead_values = dead_spread(variance)

    def forward(self, student: Sequence[Encoding], teacher: Sequence[Encoding], time: Time) -> dict[str, Tensor]:
        embeddings = [
            gather_with_gradient(full_precision(self.expander(view.pooled)))[:, None] for view in student
        ]  # V of (N, 1, D): one slot
        spread = mean_spread(embeddings)
        self.gauges = {"embedding_std": spread_of_unit_vectors(embeddings[0])}
        return {
            "invariance": self.invariance * mean_invariance(embeddings),
            "variance": self.variance * spread.variance,
            "covariance": self.covariance * spread.covariance,
        }

    def refuses(self, student: Sequence[Crops], teacher: Sequence[Crops]) -> str | None:
        views = sum(crops.count for crops in student)
        if views < 2:
            return f"the global criterion compares at least two views; this method's student sees {views}"
        return None


def dead_spread(variance: float) -> dict[str, DeadValue]:
    """Of embeddings that are the same for all images, in direction or altogether (each std below 0.011).

    Args:
        variance: the weight of the variance term, which is also the most it can be.
    """
    mend = "lower the learning rate, lengthen the warm-up, or raise the weight of variance"
    alike = DeadValue(low=0.0, high=0.01, meaning="the embeddings point the same way for all images", mend=mend)
    constant = DeadValue(
        low=0.985 * variance,
        high=math.inf,
        meaning=f"no dimension of the embeddings varies over images ({0.99 * variance:.4g} is a constant's value)",
        mend=mend,
    )
    return {"embedding_std": alike, **({"variance": constant} if variance > 0 else {})}


@torch.no_grad()
def spread_of_unit_vectors(embeddings: Tensor) -> Tensor:
    """Mean std over images of unit-length embeddings (N, ..., D), times sqrt(D): 0 when collapsed, near 1 at best."""
    unit = F.normalize(embeddings.detach(), dim=-1)
    return unit.std(0).mean() * math.sqrt(embeddings.shape[-1])
