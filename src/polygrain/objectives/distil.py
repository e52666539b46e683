"""Group discrimination: agree with the teacher on which prototypes an image belongs to."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from polygrain import distributed
from polygrain.losses.distillation import prototype_distillation, sharpened
from polygrain.losses.pairs import pair_weights
from polygrain.objectives.base import DeadValue, Objective
from polygrain.objectives.contrast import pooled, refuses_pairs
from polygrain.parts.heads import Prototypes, mlp, truncated_normal_init
from polygrain.parts.teacher import StudentTeacher
from polygrain.schedules import Schedule, Time
from polygrain.views import Crops, Encoding


class GroupDiscrimination(Objective):
    """Cross-entropy between the teacher's centred, sharpened assignment to K prototypes and the student's.

    (Mugs, arXiv:2203.14415, sec. 3.3; DINO, arXiv:2104.14294, sec. 3.1.)

    Args:
        dim: width of the encoder.
        hidden: width of the projector's two hidden layers.
        out: width of the prototypes.
        prototypes: their number K.
        teacher_temperature: schedule; rises in long runs.
        centre_momentum: how much of the centre stays at each step.
        freeze_epochs: epochs at the start in which the prototypes get no gradient.
        fixed_norm: prototypes have length 1, instead of learnt lengths.
        large_views: how many of the student's views, the first ones, are large.
        batch_norm: in the projector.
    """

    granularity = "group"
    centre: Tensor  # (K,) running mean of the teacher's logits, the same on all ranks

    def __init__(
        self,
        dim: int,
        *,
        hidden: int,
        out: int,
        prototypes: int,
        student_temperature: float,
        teacher_temperature: Schedule,
        centre_momentum: float,
        freeze_epochs: int,
        fixed_norm: bool,
        large_views: int = 2,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        projector = mlp((dim, hidden, hidden, out), activation="gelu", norm="batch" if batch_norm else None)
        truncated_normal_init(projector)
        self.projector = StudentTeacher(projector)
        self.prototypes = StudentTeacher(Prototypes(out, prototypes, fixed_norm=fixed_norm))
        self.register_buffer("centre", torch.zeros(prototypes))
        self.student_temperature = student_temperature
        self.teacher_temperature = teacher_temperature
        self.centre_momentum = centre_momentum
        self.freeze_epochs = freeze_epochs
        self.large_views = large_views
        self.dead_values = dead_assignments(prototypes)

    def forward(self, student: Sequence[Encoding], teacher: Sequence[Encoding], time: Time) -> dict[str, Tensor]:
        with torch.no_grad():
            logits = self._teacher_logits(teacher)  # (T, B, K)
            targets = sharpened(logits, self.centre, self.teacher_temperature(time))
        weights = pair_weights(len(teacher), len(student), self.large_views)
        loss = prototype_distillation(
            _project(self.projector.student, student),
            self.prototypes.student.weight_v,
            self.prototypes.student.weight_g,
            targets,
            weights,
            self.student_temperature,
        )
        self.gauges = assignment_gauges(targets)
        self.gauges["kl"] = loss.detach() - self.gauges["teacher_entropy"]
        if self.training:
            self.centre.lerp_(distributed.mean(logits.mean((0, 1))), 1 - self.centre_momentum)
        return {"cross_entropy": loss}

    def _teacher_logits(self, teacher: Sequence[Encoding]) -> Tensor:
        vectors = _project(self.projector.teacher, teacher)
        with torch.autocast(vectors.device.type, enabled=False):
            logits: Tensor = self.prototypes.teacher(vectors)
        return logits

    def refuses(self, student: Sequence[Crops], teacher: Sequence[Crops]) -> str | None:
        return refuses_pairs(student, teacher)

    def after_backward(self, time: Time) -> None:
        """Frozen prototypes lose their gradients, so the optimizer neither moves nor decays them."""
        if time.epoch < self.freeze_epochs:
            for parameter in self.prototypes.student.parameters():
                parameter.grad = None


def _project(projector: torch.nn.Module, encodings: Sequence[Encoding]) -> Tensor:
    """(V, B, D) unit vectors."""
    vectors = pooled(encodings)
    projected = F.normalize(projector(vectors.flatten(0, 1)).float(), dim=-1)
    return projected.view(*vectors.shape[:2], -1)


def dead_assignments(prototypes: int) -> dict[str, DeadValue]:
    """The two ways in which assignments to K prototypes die, as `assignment_gauges` shows them."""
    return {
        "teacher_entropy": DeadValue(
            low=0.98 * math.log(prototypes),
            high=math.inf,
            meaning=f"the teacher spreads every image evenly over all prototypes (ln {prototypes} is all there can be)",
            mend="lower the teacher's temperature, or the learning rate",
        ),
        "perplexity": DeadValue(
            low=0.0,
            high=1.5,
            meaning="the teacher gives all images the same prototype",
            mend="raise the teacher's temperature, or let the centre move faster (a lower centre momentum)",
        ),
    }


@torch.no_grad()
def assignment_gauges(targets: Tensor) -> dict[str, Tensor]:
    """How sure and how varied the assignments (T, B, K) of this rank are.

    `teacher_entropy` is 0 where all mass lies on one prototype and ln K where it is spread evenly. `perplexity` is
    the number of prototypes in effective use by the mean assignment (1 if all images share one); `occupancy` the
    share of prototypes that are some view's first choice.
    """
    rows = targets.flatten(0, 1)  # (T B, K)
    mean = rows.mean(0)
    return {
        "teacher_entropy": torch.special.entr(rows).sum(1).mean(),
        "perplexity": torch.special.entr(mean).sum().exp(),
        "occupancy": torch.zeros_like(mean).index_fill_(0, rows.argmax(1), 1).mean(),
    }
