"""Choices about video object segmentation."""

from dataclasses import dataclass
from typing import Any, Literal

from polygrain.evaluate.settings.base import ProtocolSettings

PREVIOUS = {"dino": 7, "mugs": 20}  # frames of the context besides the first


@dataclass(frozen=True, kw_only=True)
class TrackSettings(ProtocolSettings):
    """Video object segmentation: object masks of the first frame follow the patches, nothing is trained (DINO).

    Args:
        size: length to which the shorter side of frames is brought; the longer one follows, down to a multiple of 64,
            or of the patch where that does not divide 64. DINO's is 480, which is the default; less is cheaper, and
            another protocol.
        preset: frames before each one that it takes labels from, besides the first: `dino` 7, `mugs` 20.
        previous: the same as a number.
        neighbours: most similar patches whose labels count.
        window: patches to each side within which they may lie.
        temperature: of the weights exp(cosine / temperature).
        split: the list in ImageSets, of sequences to score.
        sequences: names of sequences, where not all of that list are wanted.
        out: folder for the predicted masks, as DAVIS has them: OUT/SEQUENCE/00000.png.
    """

    preset: Literal["dino", "mugs"] = "dino"
    previous: int | None = None
    neighbours: int = 5
    window: int = 12
    temperature: float = 0.1
    split: str = "2017/val"
    sequences: tuple[str, ...] = ()
    out: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("previous", 0), ("neighbours", 1), ("window", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} is {value}; it must be {least} or more")
        if not self.temperature > 0:
            raise ValueError(f"temperature is {self.temperature}; it must be above 0")

    @property
    def context(self) -> int:
        """Frames besides the first one."""
        return PREVIOUS[self.preset] if self.previous is None else self.previous

    def of_protocol(self) -> dict[str, Any]:
        unused = ("preset", "previous", "sequences", "split", "out")
        fields = {name: value for name, value in super().of_protocol().items() if name not in unused}
        return {**fields, "size": self.size or 480, "previous": self.context}
