"""A network and its exponential moving average."""

import copy
from typing import Generic, TypeVar

import torch
from timm.layers.drop import DropPath
from torch import Tensor, nn

Part = TypeVar("Part", bound=nn.Module)


class StudentTeacher(nn.Module, Generic[Part]):
    """The same module twice: a trained `student`, and a `teacher` that follows it without gradient.

    The teacher starts as a copy, has no drop path, stays in training mode, and averages parameters only: each
    side keeps its own buffers (`reference`: Mugs, arXiv:2203.14415, sec. 3; DINO, arXiv:2104.14294). What the
    student is given later (a mask token) it has alone: the teacher averages what both have.
    """

    def __init__(self, student: Part) -> None:
        super().__init__()
        self.student: Part = student
        self.teacher: Part = copy.deepcopy(student)
        self.teacher.requires_grad_(False)
        for module in self.teacher.modules():
            if isinstance(module, DropPath):
                module.drop_prob = 0.0

    @torch.no_grad()
    def update(self, momentum: float) -> None:
        """teacher <- momentum teacher + (1 - momentum) student, for parameters."""
        own = dict(self.student.named_parameters())
        pairs: list[tuple[Tensor, Tensor]] = [(p, own[name]) for name, p in self.teacher.named_parameters()]
        if pairs:
            teacher, student = zip(*pairs, strict=True)
            torch._foreach_lerp_(list(teacher), list(student), 1 - momentum)

    def restart(self) -> None:
        """The teacher takes over all that it has in common with the student, buffers too."""
        own = self.student.state_dict()
        self.teacher.load_state_dict({name: own[name] for name in self.teacher.state_dict()})
