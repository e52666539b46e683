"""Jigsaw puzzles: an image's pieces, in random order, find the image among everything in a queue."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from polygrain.losses.contrastive import info_nce
from polygrain.losses.gauges import spread
from polygrain.objectives.base import DeadValue, Objective
from polygrain.objectives.contrast import pooled
from polygrain.objectives.queued import QueuedContrast, unit
from polygrain.parts.heads import mlp
from polygrain.schedules import Time
from polygrain.views import Crops, Encoding

PIECES = 9


class JigsawContrast(Objective):
    """InfoNCE of a vector made of all pieces with the teacher's key of the whole image.

    Each piece is projected, the projections stand side by side in the order in which the pieces came, and one more
    layer makes a vector of them (PIRL, arXiv:1912.01991, fig. 3; InfoMin, arXiv:2005.10243, official code 84f94ea,
    `networks/util.py`). Keys and negatives are those of another objective, which must come after this one, so that
    the keys are not among their own negatives.

    Args:
        dim: width of the encoder.
        hidden: width of the hidden layer of the pieces' projector.
        out: width of keys.
        partner: projects the keys and holds the queue.
    """

    granularity = "instance"

    def __init__(self, dim: int, *, hidden: int, out: int, partner: QueuedContrast) -> None:
        super().__init__()
        self.fc1 = mlp((dim, hidden, out), activation="relu")
        self.fc2 = nn.Linear(PIECES * out, out)
        self._partner = (partner,)  # in a tuple, so that it is not registered, saved and optimised a second time
        self.dead_values = {
            "puzzle_spread": DeadValue(
                low=0.0,
                high=0.01,
                meaning="the vectors made of the pieces are the same for all images",
                mend="lower the learning rate or lengthen the warm-up",
            )
        }

    def forward(self, student: Sequence[Encoding], teacher: Sequence[Encoding], time: Time) -> dict[str, Tensor]:
        (partner,) = self._partner
        queries = self.puzzle(pooled(student[-PIECES:]))[None]  # (1, B, out)
        with torch.no_grad():
            keys = unit(partner.projector.teacher, pooled(teacher))  # (1, B, out)
        loss, accuracy = info_nce(queries, keys, partner.queue.rows.float(), torch.ones(1, 1), partner.temperature)
        self.gauges = {"accuracy": accuracy, "puzzle_spread": spread(queries[0])}
        return {"info_nce": loss}

    def puzzle(self, pieces: Tensor) -> Tensor:
        """(9, B, D) to unit vectors (B, out)."""
        side_by_side = self.fc1(pieces).transpose(0, 1).flatten(1)  # (B, 9 out)
        return F.normalize(self.fc2(side_by_side).float(), dim=1)

    def refuses(self, student: Sequence[Crops], teacher: Sequence[Crops]) -> str | None:
        if student and student[-1].jigsaw and student[-1].count == PIECES and len(teacher) == 1:
            return None
        return f"it needs {PIECES} pieces of a puzzle as the student's last views, and a teacher with one view"

    def take_over(self, gone: Objective) -> None:
        if gone is self._partner[0]:
            raise ValueError(
                "the puzzles take keys and negatives from what would be left out; leave out 'jigsaw' instead"
            )
