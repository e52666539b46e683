"""Choices about ranking: retrieval, near copies, correspondence."""

from dataclasses import dataclass
from typing import Literal

from polygrain.evaluate.settings.base import BatchSettings, EncoderSettings, FeatureSettings


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
        originals: images of --data that are copied, drawn at random; the others distract. Not for Copydays.
        covariance: of the whitening, learnt on other images: `uncentred` as DINO's script has it, or `centred`.
    """

    originals: int = 50
    covariance: Literal["uncentred", "centred"] = "uncentred"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.originals < 1:
            raise ValueError(f"originals is {self.originals}; it must be 1 or more")


@dataclass(frozen=True, kw_only=True)
class CorrespondSettings(EncoderSettings):
    """Dense correspondence: patches of one crop find their places in another crop of the same image (PCK).

    Args:
        images: how many are drawn from the data; all where there are fewer.
        scale: range of the share of the image that a crop shows.
        recipe: changes of colour: `mae` has none; `byol_a`, `simclr` ... as in pretraining.
    """

    images: int = 500
    scale: tuple[float, float] = (0.4, 1.0)
    recipe: str = "mae"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.images < 1:
            raise ValueError(f"images is {self.images}; it must be 1 or more")
        low, high = self.scale
        if not 0 < low <= high <= 1:
            raise ValueError(f"scale is {list(self.scale)}; it must rise within 0 to 1, as in [0.4, 1.0]")
