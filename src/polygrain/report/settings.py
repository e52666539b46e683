"""Choices about a report. Imports nothing heavy, so that `--help` answers at once."""

from dataclasses import dataclass

from polygrain.evaluate.settings.base import VectorSettings

MOST = 5000  # images in one page


@dataclass(frozen=True, kw_only=True)
class ReportSettings(VectorSettings):
    """A page about what models see in images.

    Args:
        images: how many to show, drawn from the data with the seed; all where there are fewer.
        groups: number of k-means groups, at most that of images; by default the square root of half of these.
        changed: images that are also shown cropped and recoloured, for the granularity profile.
        closeups: images whose inside is shown: patch colours, segments, attention, matches.
        hierarchy: JSON file that names the group of each class, as in {"tabby": "cat"}; adds coarse classes to the
            profile, which takes 20 images; they must have labels.
    """

    images: int = 1000
    groups: int | None = None
    changed: int = 150
    closeups: int = 6
    hierarchy: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 2 <= self.images <= MOST:
            raise ValueError(f"images is {self.images}; a page shows 2 to {MOST:,}")
        if self.groups is not None and self.groups < 1:
            raise ValueError(f"groups is {self.groups}; it must be 1 or more")
        if self.changed < 10:
            raise ValueError(f"changed is {self.changed}; it must be 10 or more")
        if not 1 <= self.closeups <= 50:
            raise ValueError(f"closeups is {self.closeups}; it must lie between 1 and 50")
