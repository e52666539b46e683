"""What an objective is."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

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


class Embed(Protocol):
    """Vectors of all images of the data set, in its order, the same on all ranks; made when it is called."""

    def __call__(
        self, project: Callable[[Tensor], Tensor], *, crops: str | None = None, teacher: bool = False
    ) -> Tensor:
        """(V, images, out) float32, without gradient.

        Args:
            project: from pooled vectors (B, D) to (B, out), per view.
            crops: the method's request whose V random crops of this epoch are seen, by the network as it trains; by
                default the one centred crop, in evaluation mode.
            teacher: by the teacher instead of the student.
        """


class Objective(nn.Module):
    """One term of a loss, with the heads, queues and prototypes that it alone uses.

    `granularity` names what the term makes alike: "region", "instance", "local group", "group" or several of them.
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

    def prepare(self, images: int) -> None:
        """Called once, before training and before a state is loaded, with the number of images in the data set."""

    def start_epoch(self, time: Time, embed: Embed) -> None:
        """Called before the first step of each epoch; not again when a run resumes in the middle of one."""

    def after_backward(self, time: Time) -> None:
        """Called between backward and the optimizer, for example to drop gradients of frozen prototypes."""

    def take_over(self, gone: "Objective") -> None:
        """Called when a method leaves another objective out, which may have owned what both used."""

    def update_teacher(self, momentum: float) -> None:
        """Moves the teacher sides of this objective's heads; called once per optimizer step."""
        for module in self.modules():
            if isinstance(module, StudentTeacher):
                module.update(momentum)
