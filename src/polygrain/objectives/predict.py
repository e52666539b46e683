"""Predicting the vector of another view of the same image, without negatives."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from polygrain.losses.gauges import spread
from polygrain.losses.pairs import pair_weights
from polygrain.losses.regression import negative_cosine, normalised_regression
from polygrain.objectives.base import DeadValue, Objective
from polygrain.objectives.contrast import refuses_pairs
from polygrain.parts.heads import mlp
from polygrain.parts.teacher import StudentTeacher
from polygrain.schedules import Time
from polygrain.views import Crops, Encoding

ALIKE = DeadValue(
    low=0.0,
    high=0.01,
    meaning="the vectors to predict are the same for all images",
    mend="lower the learning rate, lengthen the warm-up, or take larger batches",
)


class Bootstrap(Objective):
    """The student predicts what the teacher makes of another view: sum over both directions of ||p - z||^2, unit p, z.

    Batch norm of the heads sees one view at a time. The predictor belongs to the student alone (BYOL,
    arXiv:2006.07733, eq. 2).

    Args:
        dim: width of the encoder.
        hidden: width of the projector's hidden layer.
        predictor_hidden: width of the predictor's.
        out: width of what is predicted.
    """

    granularity = "instance"

    def __init__(self, dim: int, *, hidden: int, predictor_hidden: int, out: int) -> None:
        super().__init__()
        self.projector = StudentTeacher(mlp((dim, hidden, out), activation="relu", norm="batch", last_bias=False))
        self.predictor = mlp((out, predictor_hidden, out), activation="relu", norm="batch", last_bias=False)
        self.dead_values = {"target_spread": ALIKE}

    def forward(self, student: Sequence[Encoding], teacher: Sequence[Encoding], time: Time) -> dict[str, Tensor]:
        predictions = view_by_view(nn.Sequential(self.projector.student, self.predictor), student)
        with torch.no_grad():
            targets = view_by_view(self.projector.teacher, teacher)
        weights = 2 * pair_weights(len(targets), len(predictions), large=len(predictions))  # a sum of two directions
        self.gauges = {"target_spread": spread(targets[0])}
        return {"regression": normalised_regression(predictions, targets, weights)}

    def refuses(self, student: Sequence[Crops], teacher: Sequence[Crops]) -> str | None:
        return refuses_pairs(student, teacher)


class Siamese(Objective):
    """Each view's prediction against the projection of the other, which gets no gradient: the mean of -cos(p, sg z).

    Batch norm of the heads sees one view at a time. The projector ends in a batch norm without gain and offset; the
    bias before it never trains, since that norm takes it away again (SimSiam, arXiv:2011.10566, eq. 4; code a7bc177).
    That norm also stretches whatever differences are left, so `target_spread` falls late: a collapsing encoder shows in
    its own spread first.

    Args:
        dim: width of the encoder.
        hidden: width of all layers of the projector, and of what is predicted.
        bottleneck: width of the predictor's hidden layer.
    """

    granularity = "instance"

    def __init__(self, dim: int, *, hidden: int, bottleneck: int) -> None:
        super().__init__()
        widths = (dim, hidden, hidden, hidden)
        self.projector = mlp(widths, activation="relu", norm="batch", bias=False, last_norm=True)
        self.projector[6].bias.requires_grad_(False)
        self.predictor = mlp((hidden, bottleneck, hidden), activation="relu", norm="batch", bias=False)
        self.dead_values = {"target_spread": ALIKE}

    def forward(self, student: Sequence[Encoding], teacher: Sequence[Encoding], time: Time) -> dict[str, Tensor]:
        targets = view_by_view(self.projector, student)
        predictions = torch.stack([self.predictor(view) for view in targets])
        weights = pair_weights(len(targets), len(predictions), large=len(predictions))
        self.gauges = {"target_spread": spread(targets[0])}
        return {"negative_cosine": negative_cosine(predictions, targets, weights)}

    def refuses(self, student: Sequence[Crops], teacher: Sequence[Crops]) -> str | None:
        views = sum(crops.count for crops in student)
        return None if views > 1 else f"it compares at least two views; this method's student sees {views}"


def view_by_view(head: nn.Module, encodings: Sequence[Encoding]) -> Tensor:
    """(V, B, D) what a head makes of the pooled vectors of each view by itself, which batch norm can tell."""
    return torch.stack([head(encoding.pooled) for encoding in encodings])
