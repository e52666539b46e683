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
    side keeps its own buffers (`reference`: Mugs, arXiv:2203.14415, sec. 3; DINO, arXiv:2104.14294).
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
        teacher: list[Tensor] = list(self.teacher.parameters())
        student: list[Tensor] = list(self.student.parameters())
        if teacher:
            torch._foreach_lerp_(teacher, student, 1 - momentum)
