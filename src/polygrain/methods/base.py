"""What a method is: which views each network sees, and which objectives judge what comes out."""

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor, nn

from polygrain.methods.optimization import Optimization
from polygrain.objectives.base import DeadValue, Embed, Objective
from polygrain.parts.encoder import Encoder
from polygrain.parts.teacher import StudentTeacher
from polygrain.schedules import RunLength, Schedule, Time
from polygrain.views import Crops, Encoding, Mask, View, join


class Method(nn.Module):
    """Runs each encoder once per crop size and lets the objectives judge; weights are plain multipliers.

    Args:
        encoder: one network, or a student with its teacher.
        objectives: terms by name.
        weights: multiplier of each objective; the loss is the weighted sum of their terms.
        student_sees: the crops that the student encodes, in this order.
        teacher_sees: likewise for the teacher, without gradient; the same request may serve both.
        momentum: schedule of the teacher's momentum; needed with a teacher.
        apart: one backbone pass per view, so that BatchNorm statistics are per view, instead of one per size.
        teacher_first: the teacher moves before it encodes, towards the weights of before the step (MoCo v2, MoCo-v3,
            PCL), instead of after the step.
        exports_teacher: what is evaluated and exported is the teacher, if there is one (DINO, iBOT, Mugs), instead of
            the student, which the authors of MoCo, PCL and BYOL take.
        mask: changes what is hidden in the student's views once the teacher has seen its own (MST).
    """

    needs_labels = False  # a method that says so is given them by the loop; no other, and no objective, ever sees one

    def __init__(
        self,
        encoder: Encoder | StudentTeacher[Encoder],
        objectives: Mapping[str, Objective],
        *,
        weights: Mapping[str, float],
        student_sees: Sequence[Crops],
        teacher_sees: Sequence[Crops] = (),
        momentum: Schedule | None = None,
        apart: bool = False,
        teacher_first: bool = False,
        exports_teacher: bool = True,
        mask: Callable[[Sequence[View], Sequence[Encoding]], Sequence[View]] | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.objectives = nn.ModuleDict()
        self.weights: dict[str, float] = {}
        self.student_sees, self.teacher_sees = tuple(student_sees), tuple(teacher_sees)
        self.momentum = momentum
        self.apart = apart
        self.teacher_first = teacher_first
        self.mask = mask
        self.exports_teacher = exports_teacher and isinstance(encoder, StudentTeacher)
        self._moved_at = -1  # the step at which a teacher that moves first has moved
        self.seen: tuple[Encoding, ...] = ()  # the newest large views as the exported network saw them, detached
        for name, objective in objectives.items():
            self.add(name, objective, weights[name])

    @property
    def crops(self) -> tuple[Crops, ...]:
        """What the loader must cut: every request once."""
        return tuple({crops.name: crops for crops in (*self.teacher_sees, *self.student_sees)}.values())

    @property
    def student(self) -> Encoder:
        return self.encoder.student if isinstance(self.encoder, StudentTeacher) else self.encoder

    @property
    def backbone(self) -> Encoder:
        """The encoder to evaluate and export, the one that the method's authors take."""
        if isinstance(self.encoder, StudentTeacher) and self.exports_teacher:
            return self.encoder.teacher
        return self.student

    @property
    def large_views(self) -> int:
        """How many of the student's views have the largest size."""
        return sum(crops.count for crops in self._large_crops())

    def _large_crops(self) -> tuple[Crops, ...]:
        largest = max(crops.size for crops in self.student_sees)
        return tuple(crops for crops in self.student_sees if crops.size == largest)

    def add(self, name: str, objective: Objective, weight: float = 1.0) -> None:
        """Adds a term to the loss.

        Raises:
            ValueError: when the name is taken, the weight is not positive, or the objective cannot work here.
        """
        if name in self.objectives:
            raise ValueError(
                f"this method already has an objective {name!r}; its names are {', '.join(self.objectives)}"
            )
        if not weight > 0:
            raise ValueError(f"weight of {name!r} is {weight}; it must be above 0 (leave the objective out instead)")
        if reason := objective.refuses(self.student_sees, self.teacher_sees):
            raise ValueError(f"cannot add {name!r}: {reason}")
        self.objectives[name] = objective
        self.weights[name] = weight

    def remove(self, name: str) -> None:
        """Leaves a term out of the loss; weights that add up to 1 (Mugs, VICRegL) still do afterwards.

        Raises:
            ValueError: when there is no such term, or no other.
        """
        if name not in self.objectives:
            raise ValueError(f"cannot leave out {name!r}: the objectives of this method are {', '.join(self.weights)}")
        if len(self.objectives) == 1:
            raise ValueError(f"cannot leave out {name!r}: it is the only objective of this method")
        is_mean = math.isclose(sum(self.weights.values()), 1)
        gone = self._terms()[list(self.objectives).index(name)]
        del self.objectives[name], self.weights[name]
        for objective in self._terms():
            objective.take_over(gone)
        if is_mean:
            total = sum(self.weights.values())
            self.weights = {other: weight / total for other, weight in self.weights.items()}

    def hide(self, mask: Callable[[Crops], Mask]) -> None:
        """From now on the student is not shown some patches of the crops that the teacher sees whole.

        Raises:
            ValueError: when the encoder is not a ViT, or the method hides patches already.
        """
        if self.student.hides != "never":
            raise ValueError("this method hides patches itself; leave out what would hide more")
        self.student.hide("replace")
        masked = {crops: replace(crops, mask=mask(crops)) for crops in self.teacher_sees}
        self.student_sees = tuple(masked.get(crops, crops) for crops in self.student_sees)
        self.teacher_sees = tuple(masked.values())

    def with_teacher(self, momentum: Schedule) -> StudentTeacher[Encoder]:
        """The encoder with its teacher; where there is none, one that sees the student's large crops is made.

        A made teacher serves objectives that are added. The method's own objectives do without it, it moves after each
        optimizer step, and what is exported remains the student.

        Args:
            momentum: schedule of the share of a made teacher that stays at each step.
        """
        if not isinstance(self.encoder, StudentTeacher):
            self.encoder = StudentTeacher(self.encoder)
            self.teacher_sees, self.momentum = self._large_crops(), momentum
        return self.encoder

    def forward(self, views: Mapping[str, Sequence[View]], time: Time) -> dict[str, Tensor]:
        """Unweighted terms as "objective/term", each objective's weighted sum in "loss"."""
        if self.teacher_first and self.training and time.step != self._moved_at:  # once, however many batches add up
            self._moved_at = time.step
            self._move_teachers(time)
        teacher: list[Encoding] = []
        if isinstance(self.encoder, StudentTeacher):
            with torch.no_grad():
                teacher = self._encode(
                    self.encoder.teacher, [v for crops in self.teacher_sees for v in views[crops.name]]
                )
        seen: Sequence[View] = [v for crops in self.student_sees for v in views[crops.name]]
        student = self._encode(self.student, seen if self.mask is None else self.mask(seen, teacher))
        self.seen = tuple(e.detach() for e in (teacher if self.exports_teacher else student)[:2])
        terms: dict[str, Tensor] = {}
        loss: Tensor | float = 0.0
        for name, objective in self.objectives.items():
            for term, value in objective(student, teacher, time).items():
                terms[f"{name}/{term}"] = value
                loss = loss + self.weights[name] * value
        assert isinstance(loss, Tensor)
        return {**terms, "loss": loss}

    def _encode(self, encoder: Encoder, views: Sequence[View]) -> list[Encoding]:
        if self.apart:
            return [encoder(view) for view in views]
        return encode_by_size(encoder, views)

    def prepare(self, images: int) -> None:
        """Gives objectives that remember every image room for so many."""
        for objective in self._terms():
            objective.prepare(images)

    def start_epoch(self, time: Time, embed: Embed) -> None:
        """Once per epoch, before its first step, on all ranks together; what it finds is kept in buffers."""
        for objective in self._terms():
            objective.start_epoch(time, embed)

    def after_backward(self, time: Time) -> None:
        for objective in self._terms():
            objective.after_backward(time)

    def update_teachers(self, time: Time) -> None:
        """Once per optimizer step, after it; `time` is that of the step just taken."""
        if not self.teacher_first:
            self._move_teachers(time)

    @torch.no_grad()
    def _move_teachers(self, time: Time) -> None:
        if isinstance(self.encoder, StudentTeacher) and self.momentum is not None:
            momentum = self.momentum(time)
            self.encoder.update(momentum)
            for objective in self._terms():
                objective.update_teacher(momentum)

    def gauges(self) -> dict[str, Tensor]:
        return {
            f"{name}/{gauge}": value
            for name, objective in zip(self.objectives, self._terms(), strict=True)
            for gauge, value in objective.gauges.items()
        }

    def dead_values(self) -> dict[str, DeadValue]:
        """Of all objectives: terms under the names that `forward` gives them, gauges under those of `gauges`."""
        return {
            f"{name}/{reading}": dead
            for name, objective in zip(self.objectives, self._terms(), strict=True)
            for reading, dead in objective.dead_values.items()
        }

    def _terms(self) -> list[Objective]:
        return [objective for objective in self.objectives.values() if isinstance(objective, Objective)]


def encode_by_size(encoder: Encoder, views: Sequence[View]) -> list[Encoding]:
    """One backbone pass per crop size, all images of crop 0 first, split again into one encoding per view."""
    sizes = [tuple(view.pixels.shape[-2:]) for view in views]
    encodings: dict[int, Encoding] = {}
    for size in dict.fromkeys(sizes):
        members = [i for i, s in enumerate(sizes) if s == size]
        seen = encoder(join([views[i] for i in members]))
        counts = [views[i].pixels.shape[0] for i in members]
        none = [None] * len(members)
        parts = zip(*(none if field is None else field.split(counts) for field in seen[1:]), strict=True)
        for i, fields in zip(members, parts, strict=True):
            encodings[i] = Encoding(views[i], *fields)
    return [encodings[i] for i in range(len(views))]


class Settings(Protocol):
    """The hyperparameters of a method: a frozen, keyword-only dataclass with the paper's defaults."""

    @abstractmethod
    def build(self, encoder: Encoder) -> Method: ...

    @abstractmethod
    def optimization(self, length: RunLength) -> Optimization: ...
