"""Choices about measures that need no labels."""

from dataclasses import dataclass

from polygrain.evaluate.settings.base import VectorSettings


@dataclass(frozen=True, kw_only=True)
class LookSettings(VectorSettings):
    """Images seen as they are and changed: what every measure without labels starts from.

    Args:
        images: how many are drawn from the data; all where there are fewer.
        changed: how many of them are also shown changed: cropped, recoloured, mirrored ...
        views: random crops of each changed image, 2 or more.
        neighbours: length of the lists of nearest neighbours that are compared.
        cache: folder in which features of image files are kept, so that they are computed once; `none` keeps nothing.
            By default $POLYGRAIN_CACHE, or polygrain/ in the user's cache folder.
    """

    images: int = 2000
    changed: int = 500
    views: int = 4
    neighbours: int = 10
    cache: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("images", 20), ("changed", 10), ("views", 2), ("neighbours", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be {least} or more")


@dataclass(frozen=True, kw_only=True)
class UnlabelledSettings(LookSettings):
    """What can be said without labels: spectrum, regions, instances, neighbourhoods, groups.

    Args:
        clusters: numbers of k-means clusters; one above a fifth of the images is left out.
    """

    clusters: tuple[int, ...] = (10, 30, 100)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.clusters or min(self.clusters) < 2:
            raise ValueError(f"clusters is {list(self.clusters)}; give one or more numbers, each 2 or more")
