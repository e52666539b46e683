"""How images become features: the settings that protocols share, each class with what the one before it has, too."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from polygrain.ranges import check_ranges

Readout = Literal["pooled", "mean", "cls1", "cls4", "cls1+mean", "cls4+mean"]


@dataclass(frozen=True, kw_only=True)
class ProtocolSettings:
    """What every protocol on a frozen encoder is told.

    Args:
        size: side of the square the encoder is shown; by default the size it was trained at.
        device: `auto` takes a GPU where there is one.
        seed: of everything drawn at random.
    """

    size: int | None = None
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        check_ranges(self, {})
        if self.size is not None and self.size < 1:
            raise ValueError(f"size is {self.size}; it must be 1 or more")

    def of_protocol(self) -> dict[str, Any]:
        """The settings that decide the numbers, not how fast or where they are computed."""
        fields = dataclasses.asdict(self)
        return {
            name: value for name, value in fields.items() if name not in ("batch_size", "workers", "device", "cache")
        }


@dataclass(frozen=True, kw_only=True)
class BatchSettings(ProtocolSettings):
    """Protocols that encode images in batches.

    Args:
        batch_size: images encoded at once.
        workers: processes that decode images; by default one less than the cores, at most 8.
    """

    batch_size: int = 256
    workers: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_size < 1:
            raise ValueError(f"batch_size is {self.batch_size}; it must be 1 or more")
        if self.workers is not None and self.workers < 0:
            raise ValueError(f"workers is {self.workers}; it must be 0 or more")


@dataclass(frozen=True, kw_only=True)
class VectorSettings(BatchSettings):
    """Protocols that make a vector of the centre of each image.

    Args:
        resize: length to which the short side is brought before the centre crop; by default size * 256 / 224.
            Images whose short side is `size` already are not resized.
        readout: which vector of an image: `pooled` is what the backbone itself returns; `cls4` the class tokens of the
            last four blocks, each after the final norm, side by side (DINO's for ViT-S); `mean` the mean of the patches
            of the last block; `cls1+mean` the last class token with it (DINO's for ViT-B).
    """

    resize: int | None = None
    readout: Readout = "pooled"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.resize is not None and self.resize < 1:
            raise ValueError(f"resize is {self.resize}; it must be 1 or more")
        if self.size is not None and self.resize is not None and self.resize < self.size:
            raise ValueError(f"resize is {self.resize}, less than the crop of {self.size}; use {self.size} or more")


@dataclass(frozen=True, kw_only=True)
class AspectSettings(VectorSettings):
    """Protocols that also take images as wide or high as they are.

    Args:
        aspect: `square` is the centre crop; `native` keeps the image's own aspect: its longer side is cut to a multiple
            of the encoder's patch, and images of one size are encoded together.
    """

    aspect: Literal["square", "native"] = "square"


@dataclass(frozen=True, kw_only=True)
class FeatureSettings(AspectSettings):
    """Protocols that keep the vectors for the next one.

    Args:
        cache: folder in which features of image files are kept, so that they are computed once; `none` keeps nothing.
            By default $POLYGRAIN_CACHE, or polygrain/ in the user's cache folder.
    """

    cache: str | None = None
