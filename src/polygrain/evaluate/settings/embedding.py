"""Choices about vectors that are written to files."""

from dataclasses import dataclass
from typing import Literal

from polygrain.evaluate.settings.base import AspectSettings

Grain = Literal["pooled", "region", "group"]


@dataclass(frozen=True, kw_only=True)
class EmbedSettings(AspectSettings):
    """Vectors of images or regions, as a file.

    Args:
        level: `pooled`, one row for each image; `region`, one for each patch, with its place in the grid and its box in
            the image; `group`, one for each image, with the cluster it falls into and the distance to its centre.
        groups: number of clusters; by default the square root of the number of images.
    """

    level: Grain = "pooled"
    groups: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.groups is not None and self.groups < 1:
            raise ValueError(f"groups is {self.groups}; it must be 1 or more")
        if self.groups is not None and self.level != "group":
            raise ValueError(f"groups is {self.groups}, and level {self.level} has none; use --level group")
        if self.readout != "pooled" and self.level == "region":
            raise ValueError(f"readout is {self.readout!r}, and regions are patches, which have no other readout")
