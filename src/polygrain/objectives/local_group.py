"""Local-group discrimination: an image and its nearest neighbours, seen as one, against everything in a queue."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from polygrain.objectives.base import Objective
from polygrain.objectives.contrast import ALIKE, QueueContrast, refuses_pairs
from polygrain.parts.aggregator import Aggregator
from polygrain.parts.encoder import Encoder
from polygrain.parts.queue import Queue
from polygrain.parts.teacher import StudentTeacher
from polygrain.schedules import Time
from polygrain.views import Crops, Encoding

Query = Literal["tokens", "patches"]


class LocalGroupDiscrimination(Objective):
    """InfoNCE of views that are each aggregated with their k nearest neighbours (Mugs, arXiv:2203.14415, sec. 3.2).

    Two memories, one per network, hold the mean patch vector of the first large view: the teacher's of every
    image, the student's of weakly augmented ones. So has the official code; the paper speaks of one buffer.

    Args:
        encoder: student and teacher whose encodings come in; their final norms follow the aggregator.
        contrast: heads and queue of aggregated vectors.
        memory_size: vectors in each memory.
        neighbours: k.
        depth: blocks of the aggregator.
        query: what looks for neighbours and is aggregated with them. The official code takes the mean over all
            "tokens", class token included, before the final norm; the paper the mean over "patches", after it,
            which is what the memories hold.
        official: memories with the pointer of the official code, see Queue.

    Raises:
        ValueError: when the memories are smaller than the number of neighbours.
    """

    granularity = "local group"

    def __init__(
        self,
        encoder: StudentTeacher[Encoder],
        contrast: QueueContrast,
        *,
        memory_size: int,
        neighbours: int,
        depth: int,
        query: Query = "tokens",
        official: bool = False,
    ) -> None:
        super().__init__()
        if memory_size < neighbours:
            raise ValueError(
                f"a memory of {memory_size} vectors has no {neighbours} neighbours; "
                f"raise memory_size to {neighbours} or more, or lower neighbours"
            )
        dim = encoder.student.dim
        # In a tuple, so that the encoders are not registered, saved and optimised a second time.
        self._encoders = (encoder.student, encoder.teacher)
        self.contrast = contrast
        self.dead_values = {"key_spread": ALIKE}
        self.aggregator = StudentTeacher(Aggregator(dim, depth=depth, heads=attention_heads(encoder.student)))
        self.student_memory = Queue(memory_size, dim, official=official)
        self.teacher_memory = Queue(memory_size, dim, official=official)
        self.neighbours = neighbours
        self.query = query

    def forward(self, student: Sequence[Encoding], teacher: Sequence[Encoding], time: Time) -> dict[str, Tensor]:
        student_encoder, teacher_encoder = self._encoders
        ours = self._aggregate(student, self.student_memory, self.aggregator.student, student_encoder)
        with torch.no_grad():
            theirs = self._aggregate(teacher, self.teacher_memory, self.aggregator.teacher, teacher_encoder)
        loss, self.gauges = self.contrast(ours, theirs)
        if self.training:
            self.student_memory.push(student[0].patches.mean(1), keep=~student[0].view.strong)
            self.teacher_memory.push(teacher[0].patches.mean(1))
        return {"info_nce": loss}

    def _aggregate(
        self, encodings: Sequence[Encoding], memory: Queue, aggregator: Aggregator, encoder: Encoder
    ) -> Tensor:
        """(V, B, D) normed vectors of the views among their neighbours."""
        queries = [e.unnormed if self.query == "tokens" else e.patches.mean(1) for e in encodings]
        query = torch.cat(queries)  # (V B, D)
        aggregated = aggregator(query, memory.nearest(query, self.neighbours))  # (V B, D)
        return encoder.final_norm(aggregated).view(len(encodings), -1, encoder.dim)

    def refuses(self, student: Sequence[Crops], teacher: Sequence[Crops]) -> str | None:
        return refuses_pairs(student, teacher)


def attention_heads(encoder: Encoder) -> int:
    """As many as a ViT's own blocks have; for other networks one for each 64 features, if that divides them."""
    if encoder.family == "vit":
        return int(encoder.model.blocks[0].attn.num_heads)
    heads = max(1, encoder.dim // 64)
    return heads if encoder.dim % heads == 0 else 1
