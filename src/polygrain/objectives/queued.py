"""Instance discrimination against a queue, with a plain projector on both sides (MoCo)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from polygrain.losses.contrastive import info_nce
from polygrain.losses.gauges import spread
from polygrain.losses.pairs import pair_weights
from polygrain.objectives.base import Objective
from polygrain.objectives.contrast import ALIKE, pooled, refuses_pairs
from polygrain.parts.queue import Queue
from polygrain.parts.teacher import StudentTeacher
from polygrain.schedules import Time
from polygrain.views import Crops, Encoding


class QueuedContrast(Objective):
    """Each view of the student finds the teacher's other view among the teacher's vectors of earlier steps.

    (MoCo, arXiv:1911.05722, eq. 1; MoCo v2, arXiv:2003.04297.) Keys enter the queue after the loss.

    Args:
        projector: of pooled vectors; trained in the student, averaged in the teacher.
        out: width of what it gives.
        queue_size: number of negatives.
        same_crops: student and teacher see the same crops, so that a view is not compared with itself; otherwise
            every view of the one is compared with every view of the other.
        queries: how many of the student's views, the first ones, look for a key; None for all.
    """

    granularity = "instance"

    def __init__(
        self,
        projector: nn.Module,
        out: int,
        *,
        queue_size: int,
        temperature: float,
        same_crops: bool = False,
        queries: int | None = None,
    ) -> None:
        super().__init__()
        self.projector = StudentTeacher(projector)
        self.queue = Queue(queue_size, out, unit=True)
        self.temperature = temperature
        self.same_crops = same_crops
        self.queries = queries
        self.dead_values = {"key_spread": ALIKE}

    def forward(self, student: Sequence[Encoding], teacher: Sequence[Encoding], time: Time) -> dict[str, Tensor]:
        queries = unit(self.projector.student, pooled(student[: self.queries]))  # (V, B, out)
        with torch.no_grad():
            keys = unit(self.projector.teacher, pooled(teacher))  # (T, B, out)
        every = torch.full((len(keys), len(queries)), 1 / (len(keys) * len(queries)))
        weights = pair_weights(len(keys), len(queries), large=2) if self.same_crops else every
        loss, accuracy = info_nce(queries, keys, self.queue.rows.float(), weights, self.temperature)
        self.gauges = {"accuracy": accuracy, "key_spread": spread(keys.flatten(0, 1))}
        if self.training:
            for view in keys:
                self.queue.push(view)
        return {"info_nce": loss}

    def refuses(self, student: Sequence[Crops], teacher: Sequence[Crops]) -> str | None:
        if self.same_crops:
            return refuses_pairs(student, teacher)
        return None if teacher else "it takes its targets from a teacher; this method has none"


def unit(projector: nn.Module, vectors: Tensor) -> Tensor:
    """(V, B, D) projected to unit vectors (V, B, out), in full precision."""
    return F.normalize(projector(vectors.flatten(0, 1)).float(), dim=1).view(*vectors.shape[:2], -1)
