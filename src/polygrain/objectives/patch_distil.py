"""Masked patches: say of patches that were hidden what the teacher, who sees them, says."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from polygrain import distributed
from polygrain.losses.distillation import assignment_cross_entropies, sharpened
from polygrain.objectives.base import Objective
from polygrain.objectives.distil import GroupDiscrimination, assignment_gauges, dead_assignments
from polygrain.parts.heads import Prototypes, mlp, truncated_normal_init
from polygrain.parts.teacher import StudentTeacher
from polygrain.schedules import Schedule, Time
from polygrain.views import Crops, Encoding


class MaskedPatches(Objective):
    """Cross-entropy between the teacher's assignment of a hidden patch to K prototypes and the student's.

    L = mean over views and images of sum_p M_p H(P_teacher(p), P_student(p)) / max(1, sum_p M_p), for the views that
    both networks see; an image of which nothing is hidden gives 0 and counts. (iBOT, arXiv:2111.07832, eq. 2; official
    code da316d8.)

    Args:
        projector: of both networks.
        prototypes: of both networks.
        shared: projector and prototypes are those of another objective, which saves, freezes and averages them.
        teacher_temperature: schedule.
        centre_momentum: how much of the centre of the teacher's logits of all patches stays at each step.
        freeze_epochs: epochs at the start in which prototypes that are not shared get no gradient.
    """

    granularity = "region"
    centre: Tensor  # (K,) running mean of the teacher's logits of patches, the same on all ranks

    def __init__(
        self,
        projector: StudentTeacher[nn.Sequential],
        prototypes: StudentTeacher[Prototypes],
        *,
        shared: bool,
        student_temperature: float,
        teacher_temperature: Schedule,
        centre_momentum: float,
        freeze_epochs: int = 0,
    ) -> None:
        super().__init__()
        self._head = (projector, prototypes)  # in a tuple, so that a shared head is not registered a second time
        self.shared = shared
        if not shared:
            self.projector, self.prototypes = projector, prototypes
        count = len(prototypes.student.weight_v)
        self.register_buffer("centre", torch.zeros(count))
        self.student_temperature = student_temperature
        self.teacher_temperature = teacher_temperature
        self.centre_momentum = centre_momentum
        self.freeze_epochs = freeze_epochs
        self.dead_values = dead_assignments(count)

    def forward(self, student: Sequence[Encoding], teacher: Sequence[Encoding], time: Time) -> dict[str, Tensor]:
        projector, prototypes = self._head
        pairs = list(zip(student, teacher, strict=False))  # the small crops have no teacher
        hidden = torch.cat([_hidden(ours) for ours, _ in pairs])  # (V B, N)
        with torch.no_grad():
            theirs = _project(projector.teacher, torch.cat([encoding.patches for _, encoding in pairs]))
            targets = self._assign(theirs[hidden], time)  # (R, K)
            self.gauges = assignment_gauges(self._assign(theirs[:, :: max(1, theirs.shape[1] // 8)], time))
        vectors = _project(projector.student, torch.cat([ours.patches for ours, _ in pairs])[hidden])  # (R, out)
        entropies = assignment_cross_entropies(
            vectors, prototypes.student.weight_v, prototypes.student.weight_g, targets, self.student_temperature
        )
        share = 1 / (len(hidden) * hidden.sum(1, keepdim=True).clamp(min=1))  # (V B, 1)
        loss = (share.expand_as(hidden)[hidden] * entropies).sum()
        self.gauges["hidden"] = hidden.float().mean()
        if self.training:
            with torch.autocast(theirs.device.type, enabled=False):
                mean = prototypes.teacher(theirs.flatten(0, 1).mean(0, keepdim=True))[0]  # logits are linear
            self.centre.lerp_(distributed.mean(mean), 1 - self.centre_momentum)
        return {"cross_entropy": loss}

    def _assign(self, vectors: Tensor, time: Time) -> Tensor:
        with torch.autocast(vectors.device.type, enabled=False):
            logits = self._head[1].teacher(vectors)
        return sharpened(logits, self.centre, self.teacher_temperature(time))

    def refuses(self, student: Sequence[Crops], teacher: Sequence[Crops]) -> str | None:
        if not teacher:
            return "it takes its targets from a teacher; this method has none"
        if tuple(student[: len(teacher)]) != tuple(teacher):
            return (
                "it compares patches of the same crop; this method's student and teacher see different crops "
                "(in Mugs, --mugs.share-large-crops lets them see the same)"
            )
        if any(crops.mask is None for crops in teacher):
            return "it compares patches that were hidden from the student; nothing hides any of this method's crops"
        return None

    def take_over(self, gone: Objective) -> None:
        if isinstance(gone, GroupDiscrimination) and gone.projector is self._head[0]:
            self.projector, self.prototypes = self._head
            self.shared, self.freeze_epochs = False, gone.freeze_epochs

    def after_backward(self, time: Time) -> None:
        """Frozen prototypes lose their gradients; those of a shared head are the other objective's."""
        if not self.shared and time.epoch < self.freeze_epochs:
            for parameter in self._head[1].student.parameters():
                parameter.grad = None


def patch_head(
    dim: int, *, hidden: int, out: int, prototypes: int, fixed_norm: bool
) -> tuple[StudentTeacher[nn.Sequential], StudentTeacher[Prototypes]]:
    """A projector and prototypes for patches alone, as DINO's (arXiv:2104.14294) for class tokens."""
    projector = mlp((dim, hidden, hidden, out), activation="gelu")
    truncated_normal_init(projector)
    return StudentTeacher(projector), StudentTeacher(Prototypes(out, prototypes, fixed_norm=fixed_norm))


def _hidden(encoding: Encoding) -> Tensor:
    assert encoding.hidden is not None
    return encoding.hidden


def _project(projector: nn.Module, vectors: Tensor) -> Tensor:
    """(..., D) to unit vectors (..., out), float32."""
    return F.normalize(projector(vectors).float(), dim=-1)
