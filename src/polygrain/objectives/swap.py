"""Swapped assignments: predict from one view the prototypes that another was assigned to."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from polygrain import distributed
from polygrain.losses.gauges import spread
from polygrain.losses.pairs import pair_weights
from polygrain.losses.sinkhorn import sinkhorn, swapped_prediction
from polygrain.objectives.base import DeadValue, Objective
from polygrain.objectives.contrast import pooled
from polygrain.objectives.distil import assignment_gauges
from polygrain.parts.heads import mlp
from polygrain.parts.queue import Queue
from polygrain.schedules import Time
from polygrain.views import Crops, Encoding


class SwappedAssignments(Objective):
    """The first views are assigned to prototypes in equal parts, and every other view predicts the assignment.

    One network, no teacher. (SwAV, arXiv:2006.09882, sec. 3.) The embeddings of earlier batches may join the
    assignment of a small one: each assigning view has a queue of them, which is filled from `queue_start_epoch` on
    and used once it is full. Ranks share its rows among them, so that the codes are those of one process.

    Args:
        dim: width of the encoder.
        hidden: width of the projector's hidden layer.
        out: width of embeddings and prototypes.
        prototypes: their number K.
        temperature: of the prediction.
        epsilon: smoothness of the assignment.
        iterations: of Sinkhorn and Knopp's algorithm.
        freeze_epochs: epochs at the start in which the prototypes get no gradient; their length is 1 all the same.
        queue_size: embeddings in each queue; 0 for none.
        assigning_views: how many views, the first ones, are assigned.
    """

    granularity = "group"

    def __init__(
        self,
        dim: int,
        *,
        hidden: int,
        out: int,
        prototypes: int,
        temperature: float,
        epsilon: float,
        iterations: int,
        freeze_epochs: int,
        queue_size: int,
        queue_start_epoch: int,
        assigning_views: int = 2,
    ) -> None:
        super().__init__()
        self.projector = mlp((dim, hidden, out), activation="relu", norm="batch")
        self.prototypes = nn.Linear(out, prototypes, bias=False)
        self.queues = nn.ModuleList(
            Queue(queue_size, out, unit=True) for _ in range(assigning_views if queue_size else 0)
        )
        self.temperature, self.epsilon, self.iterations = temperature, epsilon, iterations
        self.freeze_epochs, self.queue_start_epoch = freeze_epochs, queue_start_epoch
        self.assigning_views = assigning_views
        self.dead_values = {
            "code_entropy": DeadValue(
                low=math.log(prototypes) - 1e-3,
                high=math.inf,
                meaning=f"every image is spread evenly over all prototypes (ln {prototypes} is all there can be)",
                mend="lower epsilon to 0.03, or freeze the prototypes for longer",
            ),
            "embedding_spread": same_embeddings(),
            "score_spread": DeadValue(
                low=0.0,
                high=0.2,
                meaning="all prototypes answer all images alike, so that assignments are nearly even",
                mend="lower epsilon to 0.03, or freeze the prototypes for longer",
            ),
        }

    def forward(self, student: Sequence[Encoding], teacher: Sequence[Encoding], time: Time) -> dict[str, Tensor]:
        if self.training:  # at the start of every iteration, so that the gradient is that at unit length
            with torch.no_grad():
                self.prototypes.weight.copy_(F.normalize(self.prototypes.weight, dim=1))
        embeddings = unit_embeddings(self.projector, pooled(student))  # (V, B, out)
        with torch.autocast(embeddings.device.type, enabled=False):
            scores = self.prototypes(embeddings)  # (V, B, K)
        codes = torch.stack([self._codes(scores[view].detach(), view) for view in range(self.assigning_views)])
        weights = pair_weights(len(codes), len(scores), large=len(scores))
        self.gauges = {
            "embedding_spread": spread(embeddings[0]),
            "score_spread": score_spread(scores[0], embeddings.shape[-1]),
            **_code_gauges(codes),
        }
        if self.training and time.epoch >= self.queue_start_epoch:
            for queue, view in zip(self.queues, embeddings, strict=False):
                assert isinstance(queue, Queue)
                queue.push(view)
        return {"cross_entropy": swapped_prediction(scores, codes, weights, self.temperature)}

    @torch.no_grad()
    def _codes(self, scores: Tensor, view: int) -> Tensor:
        """(B, K)"""
        count = len(scores)
        if self.queues:
            queue = self.queues[view]
            assert isinstance(queue, Queue)
            if int(queue.filled) == len(queue.rows):
                own = queue.rows[distributed.rank() :: distributed.world_size()]
                with torch.autocast(scores.device.type, enabled=False):
                    scores = torch.cat([self.prototypes(own.to(scores)), scores])
        return sinkhorn(scores, self.epsilon, self.iterations)[-count:]

    def refuses(self, student: Sequence[Crops], teacher: Sequence[Crops]) -> str | None:
        views = sum(crops.count for crops in student)
        return None if views > 1 else f"it swaps the assignments of two views; this method's student sees {views}"

    def after_backward(self, time: Time) -> None:
        """Frozen prototypes lose their gradients, so the optimizer neither moves nor decays them."""
        if time.epoch < self.freeze_epochs:
            self.prototypes.weight.grad = None


def unit_embeddings(projector: nn.Module, vectors: Tensor) -> Tensor:
    """(V, B, D) to (V, B, out), all views through the projector at once, as the authors do."""
    projected = projector(vectors.flatten(0, 1))
    projected = F.normalize(projected.to(torch.promote_types(projected.dtype, torch.float32)), dim=-1)
    return projected.view(*vectors.shape[:2], -1)


def score_spread(scores: Tensor, dim: int) -> Tensor:
    """Standard deviation of each prototype's cosine over images, averaged, times sqrt(dim).

    1 for embeddings that fill all directions alike, 0 where no prototype tells images apart, be it that the embeddings
    are the same or that they differ in directions that the prototypes do not look at.

    Args:
        scores: (B, K) of unit embeddings and unit prototypes.
        dim: of the embeddings.
    """
    return scores.detach().std(dim=0, correction=0).mean() * math.sqrt(dim)


def same_embeddings() -> DeadValue:
    """Of the spread of unit embeddings."""
    return DeadValue(
        low=0.0,
        high=0.01,
        meaning="the embeddings are the same for all images",
        mend="lower the learning rate, lengthen the warm-up, or take larger batches",
    )


def _code_gauges(codes: Tensor) -> dict[str, Tensor]:
    found = assignment_gauges(codes)
    return {"code_entropy": found["teacher_entropy"], "occupancy": found["occupancy"]}
