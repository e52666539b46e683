"""Settings of the objectives of Mugs, each of which can be added to other methods."""

from dataclasses import dataclass

from polygrain.methods.base import Method
from polygrain.objectives.contrast import InstanceDiscrimination, QueueContrast
from polygrain.objectives.distil import GroupDiscrimination
from polygrain.objectives.local_group import LocalGroupDiscrimination
from polygrain.parts.encoder import Encoder
from polygrain.parts.teacher import StudentTeacher
from polygrain.ranges import COUNT, NOT_NEGATIVE, POSITIVE, SEVERAL, SHARE, check_ranges
from polygrain.schedules import constant, cosine


@dataclass(frozen=True, kw_only=True)
class InstanceSettings:
    """Instance discrimination of Mugs (arXiv:2203.14415, sec. 3.1): a view against a queue of other images.

    Args:
        weight: multiplier of the objective; 0 leaves it out.
        hidden: width of the projector's hidden layers.
        predictor_hidden: width of the predictor's hidden layer.
        out: width of keys and predictions.
        queue_size: number of negatives.
        temperature: of the InfoNCE.
        momentum: of the teacher that is made for a method without one, at the start; rises to 1 along a cosine.
    """

    weight: float = 1.0
    hidden: int = 2048
    predictor_hidden: int = 4096
    out: int = 256
    queue_size: int = 65536
    temperature: float = 0.2
    momentum: float = 0.996

    def __post_init__(self) -> None:
        kinds = {COUNT: "hidden predictor_hidden out queue_size", POSITIVE: "temperature", SHARE: "momentum"}
        check_ranges(self, {NOT_NEGATIVE: "weight", **kinds})

    def add_to(self, method: Method) -> None:
        """Adds the objective as "instance".

        Raises:
            ValueError: when the student sees one view, or there is such an objective already.
        """
        pair = method.with_teacher(cosine(self.momentum, 1.0))
        method.add("instance", InstanceDiscrimination(queue_contrast(self, pair, method)), self.weight)


@dataclass(frozen=True, kw_only=True)
class LocalGroupSettings:
    """Local-group discrimination of Mugs (arXiv:2203.14415, sec. 3.2): an image among its nearest neighbours.

    Args:
        weight: multiplier of the objective; 0 leaves it out.
        hidden: width of the projector's hidden layers.
        predictor_hidden: width of the predictor's hidden layer.
        out: width of keys and predictions.
        queue_size: number of negatives.
        temperature: of the InfoNCE.
        memory_size: vectors in each of the two memories.
        neighbours: how many nearest neighbours make a local group with an image.
        relation_depth: blocks of the aggregator.
        momentum: of the teacher that is made for a method without one, at the start; rises to 1 along a cosine.
    """

    weight: float = 1.0
    hidden: int = 2048
    predictor_hidden: int = 4096
    out: int = 256
    queue_size: int = 65536
    temperature: float = 0.2
    memory_size: int = 65536
    neighbours: int = 8
    relation_depth: int = 1
    momentum: float = 0.996

    def __post_init__(self) -> None:
        counts = "hidden predictor_hidden out queue_size memory_size neighbours relation_depth"
        check_ranges(self, {NOT_NEGATIVE: "weight", COUNT: counts, POSITIVE: "temperature", SHARE: "momentum"})

    def add_to(self, method: Method) -> None:
        """Adds the objective as "local_group".

        Raises:
            ValueError: when the student sees one view, or there is such an objective already.
        """
        pair = method.with_teacher(cosine(self.momentum, 1.0))
        objective = LocalGroupDiscrimination(
            pair,
            queue_contrast(self, pair, method),
            memory_size=self.memory_size,
            neighbours=self.neighbours,
            depth=self.relation_depth,
        )
        method.add("local_group", objective, self.weight)


@dataclass(frozen=True, kw_only=True)
class GroupSettings:
    """Group discrimination of DINO and Mugs (arXiv:2203.14415, sec. 3.3): agree on an image's prototypes.

    Args:
        weight: multiplier of the objective; 0 leaves it out.
        hidden: width of the projector's hidden layers.
        prototype_dim: width of the prototypes.
        prototypes: number of groups.
        student_temperature: of the student's assignment to prototypes.
        teacher_temperature: of the teacher's.
        centre_momentum: how much of the centre of the teacher's logits stays at each step.
        freeze_prototypes_epochs: epochs at the start in which prototypes do not move.
        momentum: of the teacher that is made for a method without one, at the start; rises to 1 along a cosine.
    """

    weight: float = 1.0
    hidden: int = 2048
    prototype_dim: int = 256
    prototypes: int = 65536
    student_temperature: float = 0.1
    teacher_temperature: float = 0.04
    centre_momentum: float = 0.9
    freeze_prototypes_epochs: int = 1
    momentum: float = 0.996

    def __post_init__(self) -> None:
        kinds = {
            NOT_NEGATIVE: "weight",
            SEVERAL: "prototypes",
            COUNT: "hidden prototype_dim",
            POSITIVE: "student_temperature teacher_temperature",
            SHARE: "centre_momentum momentum",
        }
        check_ranges(self, kinds)

    def add_to(self, method: Method) -> None:
        """Adds the objective as "group".

        Raises:
            ValueError: when the student sees one view, or there is such an objective already.
        """
        pair = method.with_teacher(cosine(self.momentum, 1.0))
        objective = GroupDiscrimination(
            pair.student.dim,
            hidden=self.hidden,
            out=self.prototype_dim,
            prototypes=self.prototypes,
            student_temperature=self.student_temperature,
            teacher_temperature=constant(self.teacher_temperature),
            centre_momentum=self.centre_momentum,
            freeze_epochs=self.freeze_prototypes_epochs,
            fixed_norm=False,
            large_views=method.large_views,
        )
        method.add("group", objective, self.weight)


def queue_contrast(
    settings: InstanceSettings | LocalGroupSettings, pair: StudentTeacher[Encoder], method: Method
) -> QueueContrast:
    return QueueContrast(
        pair.student.dim,
        hidden=settings.hidden,
        predictor_hidden=settings.predictor_hidden,
        out=settings.out,
        queue_size=settings.queue_size,
        temperature=settings.temperature,
        large_views=method.large_views,
    )
