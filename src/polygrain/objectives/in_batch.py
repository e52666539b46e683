"""Instance discrimination within a batch: no queue, the images of all ranks are each other's negatives."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from polygrain.distributed import gather, gather_with_gradient, rank
from polygrain.losses.gauges import spread
from polygrain.losses.in_batch import nt_xent, predicted_keys
from polygrain.losses.pairs import pair_weights
from polygrain.losses.vicreg import full_precision
from polygrain.objectives.base import DeadValue, Objective
from polygrain.objectives.contrast import ALIKE, refuses_pairs
from polygrain.objectives.vicreg import spread_of_unit_vectors
from polygrain.parts.teacher import StudentTeacher
from polygrain.schedules import Time
from polygrain.views import Crops, Encoding

EMBEDDINGS_ALIKE = DeadValue(
    low=0.0,
    high=0.01,
    meaning="the embeddings point the same way for all images",
    mend="lower the learning rate, lengthen the warm-up, or raise the batch size",
)


class NTXent(Objective):
    """Two views of an image find each other among all views of the batch (SimCLR, arXiv:2002.05709, sec. 2.1).

    Vectors of all ranks are gathered with gradient: both views of every image are anchors on their own rank and keys
    on every rank. Of more than two views each of the first two is paired with every other one, as in VICRegL.

    Args:
        projector: of pooled vectors; all views go through it in one pass, so that its batch norm sees them together.
    """

    granularity = "instance"
    least_images = 2  # one image has no negatives

    def __init__(self, projector: nn.Module, *, temperature: float) -> None:
        super().__init__()
        self.projector = projector
        self.temperature = temperature
        self.dead_values = {"embedding_std": EMBEDDINGS_ALIKE}

    def forward(self, student: Sequence[Encoding], teacher: Sequence[Encoding], time: Time) -> dict[str, Tensor]:
        pooled = torch.stack([encoding.pooled for encoding in student])  # (V, n, C)
        embeddings = full_precision(self.projector(pooled.flatten(0, 1)))
        own = F.normalize(embeddings, dim=1).view(*pooled.shape[:2], 1, -1)  # (V, n, 1, D): one slot
        views = [gather_with_gradient(view) for view in own]  # V of (N, 1, D)
        weights = pivot_pairs(len(views))
        contrasts = [nt_xent(views[i], views[j], self.temperature, of_this_rank(own[i])) for i, j in weights]
        loss = sum(w * c.loss for w, c in zip(weights.values(), contrasts, strict=True))
        self.gauges = {
            "accuracy": torch.stack([contrast.accuracy for contrast in contrasts]).mean(),
            "embedding_std": spread_of_unit_vectors(views[0]),
        }
        return {"nt_xent": torch.as_tensor(loss)}

    def refuses(self, student: Sequence[Crops], teacher: Sequence[Crops]) -> str | None:
        views = sum(crops.count for crops in student)
        if views < 2:
            return f"it compares at least two views of an image; this method's student sees {views}"
        return None


class PredictedContrast(Objective):
    """Predictions of the student's views find the teacher's other view in the batch (MoCo-v3, arXiv:2104.02057).

    The directions are added up, not averaged: two views give loss(q1, k2) + loss(q2, k1). Keys are gathered without
    gradient. Heads run one view at a time, so that batch norm sees one view.

    Args:
        projector: of pooled vectors; trained in the student, averaged in the teacher.
        predictor: follows the student's projector.
    """

    granularity = "instance"
    least_images = 2  # one image has no negatives

    def __init__(self, projector: nn.Module, predictor: nn.Module, *, temperature: float) -> None:
        super().__init__()
        self.projector = StudentTeacher(projector)
        self.predictor = predictor
        self.temperature = temperature
        self.dead_values = {"key_spread": ALIKE}

    def forward(self, student: Sequence[Encoding], teacher: Sequence[Encoding], time: Time) -> dict[str, Tensor]:
        predictions = [self.predictor(self.projector.student(encoding.pooled)) for encoding in student]
        with torch.no_grad():
            own = [full_precision(self.projector.teacher(encoding.pooled)) for encoding in teacher]
            keys = torch.stack([gather(F.normalize(key, dim=1)) for key in own])  # (T, N, D)
        loss, accuracy = predicted_keys(
            F.normalize(full_precision(torch.stack(predictions)), dim=2),
            keys,
            2 * pair_weights(len(keys), len(predictions), large=2),
            self.temperature,
            of_this_rank(own[0]),
        )
        self.gauges = {"accuracy": accuracy / 2, "key_spread": spread(keys.flatten(0, 1))}
        return {"info_nce": loss}

    def refuses(self, student: Sequence[Crops], teacher: Sequence[Crops]) -> str | None:
        return refuses_pairs(student, teacher)


def of_this_rank(rows: Tensor) -> slice:
    """Where this rank's rows lie among those of all ranks."""
    return slice(rank() * len(rows), (rank() + 1) * len(rows))


def pivot_pairs(views: int) -> dict[tuple[int, int], float]:
    """Weights of pairs of views, for a value that is the same both ways round.

    The mean over ordered pairs (i, j), i one of the first two and j any other: the pair of the first two counts twice.
    """
    pairs = {(i, j): 2.0 if j == 1 else 1.0 for i in (0, 1) for j in range(i + 1, views)}
    total = sum(pairs.values())
    return {pair: weight / total for pair, weight in pairs.items()}
