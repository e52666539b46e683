"""What an objective is."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from polygrain.parts.teacher import StudentTeacher
from polygrain.schedules import Time
from polygrain.views import Crops, Encoding


class DeadValue(NamedTuple):
    """What a reading shows when an objective has nothing left to learn from: from `low` to `high`.

    The bounds are to be far from what healthy runs show, at their start too.
    """

    low: float
    high: float
    meaning: str  # continues "X is Y: "
    mend: str  # what to change


class Objective(nn.Module):
    """One term of a loss, with the heads, queues and prototypes that it alone uses.

    `granularity` names what the term makes alike: "region", "instance", "local group" or "group".
    `gauges` holds what the last forward measured besides its loss (teacher entropy, occupancy ...), detached.
    `dead_values` says which values of its terms and gauges, by name, mean that the features are dead.
    """

    granularity: str
    least_images = 1  # in a batch over all ranks

    def __init__(self) -> None:
        super().__init__()
        self.gauges: dict[str, Tensor] = {}
        self.dead_values: dict[str, DeadValue] = {}

    @abstractmethod
    def forward(self, student: Sequence[Encoding], teacher: Sequence[Encoding], time: Time) -> dict[str, Tensor]:
        """Named scalar terms, unweighted. Side effects (queues, centres) come last and only in training mode.

        Args:
            student: one encoding per view that the student saw, in the order of the method's `student_sees`.
            teacher: one encoding per view that the teacher saw, without gradient; empty without a teacher.
        """

    def refuses(self, student: Sequence[Crops], teacher: Sequence[Crops]) -> str | None:
        """Why this objective cannot judge a method whose networks see these crops; None if it can."""
        return None

    def after_backward(self, time: Time) -> None:
        """Called between backward and the optimizer, for example to drop gradients of frozen prototypes."""

    def update_teacher(self, momentum: float) -> None:
        """Moves the teacher sides of this objective's heads; called once per optimizer step."""
        for module in self.modules():
            if isinstance(module, StudentTeacher):
                module.update(momentum)
