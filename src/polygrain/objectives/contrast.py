"""Instance discrimination: tell an image's other view from everything in a queue."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from polygrain.losses.contrastive import info_nce
from polygrain.losses.gauges import spread
from polygrain.losses.pairs import pair_weights
from polygrain.objectives.base import DeadValue, Objective
from polygrain.parts.heads import mlp, truncated_normal_init
from polygrain.parts.queue import Queue
from polygrain.parts.teacher import StudentTeacher
from polygrain.schedules import Time
from polygrain.views import Crops, Encoding

ALIKE = DeadValue(
    low=0.0,
    high=0.01,
    meaning="the teacher's keys are the same for all images",
    mend="lower the learning rate, lengthen the warm-up, or raise the teacher's momentum towards 1",
)


class Contrasted(NamedTuple):
    """What comparing views with a queue gave."""

    loss: Tensor
    gauges: dict[str, Tensor]


class QueueContrast(nn.Module):
    """InfoNCE of projected, predicted student vectors with projected teacher vectors, against a queue of these.

    The projector is trained and averaged, the predictor belongs to the student alone and keeps PyTorch's own
    initialisation (Mugs, arXiv:2203.14415, sec. 3.1, and official code).

    Args:
        dim: width of the vectors that come in.
        hidden: width of the projector's two hidden layers.
        predictor_hidden: width of the predictor's hidden layer.
        out: width of keys and predictions.
        queue_size: number of negatives.
        large_views: how many of the student's views, the first ones, are large.
        batch_norm: in the projector.
    """

    def __init__(
        self,
        dim: int,
        *,
        hidden: int,
        predictor_hidden: int,
        out: int,
        queue_size: int,
        temperature: float,
        large_views: int = 2,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        projector = mlp(
            (dim, hidden, hidden, out),
            activation="gelu",
            norm="batch" if batch_norm else None,
            bias=False,
            last_bias=False,
        )
        truncated_normal_init(projector)
        self.projector = StudentTeacher(projector)
        self.predictor = mlp((out, predictor_hidden, out), activation="gelu", bias=False, last_bias=False)
        self.queue = Queue(queue_size, out, unit=True)
        self.temperature = temperature
        self.large_views = large_views

    def forward(self, student: Tensor, teacher: Tensor) -> Contrasted:
        """Of (V, B, D) vectors of the student's views with (T, B, D) of the teacher's, which then enter the queue."""
        predictions = self.predictor(F.normalize(self.projector.student(student.flatten(0, 1)), dim=-1))
        predictions = F.normalize(predictions.float(), dim=-1).view(*student.shape[:2], -1)  # (V, B, out)
        with torch.no_grad():
            keys = self.projector.teacher(teacher.flatten(0, 1)).float()
            keys = F.normalize(keys, dim=-1).view(*teacher.shape[:2], -1)  # (T, B, out)
        weights = pair_weights(len(keys), len(predictions), self.large_views)
        loss, accuracy = info_nce(predictions, keys, self.queue.rows, weights, self.temperature)
        if self.training:
            for view in keys:
                self.queue.push(view)
        return Contrasted(loss, {"accuracy": accuracy, "key_spread": spread(keys.flatten(0, 1))})


class InstanceDiscrimination(Objective):
    """Each view's pooled vector against the teacher's of the same image (Mugs, arXiv:2203.14415, sec. 3.1)."""

    granularity = "instance"

    def __init__(self, contrast: QueueContrast) -> None:
        super().__init__()
        self.contrast = contrast
        self.dead_values = {"key_spread": ALIKE}

    def forward(self, student: Sequence[Encoding], teacher: Sequence[Encoding], time: Time) -> dict[str, Tensor]:
        loss, self.gauges = self.contrast(pooled(student), pooled(teacher))
        return {"info_nce": loss}

    def refuses(self, student: Sequence[Crops], teacher: Sequence[Crops]) -> str | None:
        return refuses_pairs(student, teacher)


def pooled(encodings: Sequence[Encoding]) -> Tensor:
    """(V, B, D) pooled vectors."""
    return torch.stack([encoding.pooled for encoding in encodings])


def refuses_pairs(student: Sequence[Crops], teacher: Sequence[Crops]) -> str | None:
    """Why no view of the student could be compared with another view of the teacher; None if one can."""
    if not teacher:
        return "it takes its targets from a teacher; this method has none"
    views = sum(crops.count for crops in student if not crops.jigsaw)
    if views < 2:
        return f"it compares a teacher's view with the other views of the image; this method's student sees {views}"
    return None
