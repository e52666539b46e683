"""Choices about ranking: retrieval, near copies, correspondence."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from polygrain.evaluate.settings.base import BatchSettings, FeatureSettings, ProtocolSettings


@dataclass(frozen=True, kw_only=True)
class RetrieveSettings(FeatureSettings):
    """Retrieval: images ranked by cosine similarity, mAP and recall at k (leave-one-out, queries, ROxford/RParis).

    Args:
        k: numbers of first images for recall, or precision with a ground truth.
        scales: shares of `size` at which each image is encoded too; vectors of all are averaged. DINO's for RParis are
            [1, 0.7071, 0.5].
    """

    k: tuple[int, ...] = (1, 5, 10)
    scales: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.k or min(self.k) < 1:
            raise ValueError(f"k is {list(self.k)}; give one or more numbers of images, each 1 or more")
        if not self.scales or min(self.scales) <= 0:
            raise ValueError(f"scales are {list(self.scales)}; give one or more, each above 0")


@dataclass(frozen=True, kw_only=True)
class CopiesSettings(BatchSettings):
    """Near-copy detection: cropped, compressed, blurred ... images find their originals among others (Copydays).

    Args:
        size: side of the square that whole images are squeezed into; by default what the encoder was trained at, in
            DINO's protocol 320.
        originals: images of --data that are copied, drawn at random; the others distract. By default 50; not for
            Copydays.
        covariance: of the whitening, for --whiten: `uncentred` as DINO's script has it, which is the default, or
            `centred`.
    """

    originals: int | None = None
    covariance: Literal["uncentred", "centred"] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.originals is not None and self.originals < 1:
            raise ValueError(f"originals is {self.originals}; it must be 1 or more")


class TwoCrops(NamedTuple):
    """Which crops patches are matched between."""

    images: int = 500
    scale: tuple[float, float] = (0.4, 1.0)
    recipe: str = "mae"


@dataclass(frozen=True, kw_only=True)
class CorrespondSettings(ProtocolSettings):
    """Dense correspondence: patches of one crop find their places in another crop of the same image (PCK).

    Args:
        images: how many are drawn from the data; all where there are fewer. By default 500; this and what follows are
            not for --keypoints.
        scale: range of the share of the image that a crop shows. By default 0.4,1.
        recipe: changes of colour: `mae`, the default, has none; `byol_a`, `simclr` ... as in pretraining.
    """

    images: int | None = None
    scale: tuple[float, float] | None = None
    recipe: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.images is not None and self.images < 1:
            raise ValueError(f"images is {self.images}; it must be 1 or more")
        if self.scale is not None and not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"scale is {list(self.scale)}; it must rise within 0 to 1, as in [0.4, 1.0]")

    def given(self) -> dict[str, Any]:
        """What was said about crops."""
        return {name: value for name in TwoCrops._fields if (value := getattr(self, name)) is not None}
