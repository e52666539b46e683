"""Mixing: objectives that can be added to any method, by name, and terms that are left out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from polygrain.methods.adding_mugs import GroupSettings, InstanceSettings, LocalGroupSettings
from polygrain.methods.adding_patches import MaskedPatchSettings
from polygrain.methods.base import Method
from polygrain.objectives.local import Local
from polygrain.parts.encoder import Encoder
from polygrain.ranges import COUNT, NOT_NEGATIVE, check_ranges


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


ADDABLE: dict[str, type[Addition]] = {
    "local": LocalSettings,
    "instance": InstanceSettings,
    "local_group": LocalGroupSettings,
    "group": GroupSettings,
    "patches": MaskedPatchSettings,
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
