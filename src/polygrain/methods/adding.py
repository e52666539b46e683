"""Mixing: objectives that can be added to any method, by name, and terms that are left out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from polygrain.methods.base import Method
from polygrain.objectives.contrast import InstanceDiscrimination, QueueContrast
from polygrain.objectives.distil import GroupDiscrimination
from polygrain.objectives.local import Local
from polygrain.objectives.local_group import LocalGroupDiscrimination
from polygrain.parts.encoder import Encoder
from polygrain.parts.teacher import StudentTeacher
from polygrain.ranges import COUNT, NOT_NEGATIVE, POSITIVE, SEVERAL, SHARE, check_ranges
from polygrain.schedules import constant, cosine


class Addition(Protocol):
    """Settings of an objective that can be added: a frozen, keyword-only dataclass with a weight."""

    @property
    def weight(self) -> float: ...

    def add_to(self, method: Method) -> None:
        """Adds the objective under its name.

        Raises:
            ValueError: when it cannot work there, or there is one of that name already.
        """


@dataclass(frozen=True, kw_only=True)
class LocalSettings:
    """VICRegL's local objective (arXiv:2210.01571) on the views that a method's student sees anyway.

    Location matching knows where a crop was cut and whether it was mirrored. It does not know how strong
    augmentation (Mugs) rotated, sheared or shifted the image before, by up to 30 degrees or 45 % of its width.

    Args:
        weight: multiplier of the objective; 0 leaves it out.
        width: of the projector's hidden and output layers.
        num_matches: pairs to keep from one of the first two views to another, and back; -1 for all. By default the
            paper's 20 and 4 for every 49 patches of a view.
        feature: match patches that look alike.
        location: match patches that lie at the same place.
        all_feature_matches: keep all pairs when matching by feature.
        spread_once: variance and covariance once per view instead of once per set of matches: cheaper.
        small_crops: match small crops too, not the large ones alone.
        compat: "official" leaves the grids of mirrored crops unmirrored, as the authors' released default does.
    """

    weight: float = 0.25
    width: int = 512
    num_matches: tuple[int, int] | None = None
    feature: bool = True
    location: bool = True
    all_feature_matches: bool = True
    spread_once: bool = False
    small_crops: bool = False
    compat: Literal["fixed", "official"] = "fixed"

    def __post_init__(self) -> None:
        check_ranges(self, {NOT_NEGATIVE: "weight", COUNT: "width"})

    def build(self, encoder: Encoder) -> Local:
        return Local(
            (encoder.dim, self.width, self.width, self.width),
            norm="batch" if encoder.has_batch_norm else "layer",
            num_matches=self.num_matches,
            feature=self.feature,
            location=self.location,
            all_feature_matches=self.all_feature_matches,
            spread_once=self.spread_once,
            small_crops=self.small_crops,
            flip_grid=self.compat == "fixed",
        )

    def add_to(self, method: Method) -> None:
        """Adds the objective as "local".

        Raises:
            ValueError: when the method has no two large views, or a local objective already.
        """
        method.add("local", self.build(method.student), self.weight)


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


ADDABLE: dict[str, type[Addition]] = {
    "local": LocalSettings,
    "instance": InstanceSettings,
    "local_group": LocalGroupSettings,
    "group": GroupSettings,
}


def mix(method: Method, additions: Sequence[Addition], without: Sequence[str] = ()) -> None:
    """Takes terms out of a method's loss, then adds others; what has weight 0 is not added.

    Raises:
        ValueError: when a term is not there to be left out, or what is to be added cannot work there.
    """
    for name in without:
        method.remove(name)
    for addition in additions:
        if addition.weight > 0:
            addition.add_to(method)


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
