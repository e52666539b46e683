"""How images become features: the settings that all protocols share."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

Readout = Literal["pooled", "mean", "cls1", "cls4", "cls1+mean", "cls4+mean"]


@dataclass(frozen=True, kw_only=True)
class FeatureSettings:
    """How images become features, for every protocol on frozen features.

    Args:
        size: side of the square the encoder is shown; by default the size it was trained at.
        resize: length to which the short side is brought before the centre crop; by default size * 256 / 224.
            Images whose short side is `size` already are not resized.
        aspect: `square` is the centre crop; `native` keeps the image's own aspect: its longer side is cut to a multiple
            of the encoder's patch, and images of one size are encoded together.
        readout: which vector of an image: `pooled` is what the backbone itself returns; `cls4` the class tokens of the
            last four blocks, each after the final norm, side by side (DINO's for ViT-S); `mean` the mean of the patches
            of the last block; `cls1+mean` the last class token with it (DINO's for ViT-B).
        batch_size: images encoded at once.
        workers: processes that decode images; by default one less than the cores, at most 8.
        device: `auto` takes a GPU where there is one.
        cache: folder in which features of image files are kept, so that they are computed once; `none` keeps nothing.
            By default $POLYGRAIN_CACHE, or polygrain/ in the user's cache folder.
        seed: of everything drawn at random.
    """

    size: int | None = None
    resize: int | None = None
    aspect: Literal["square", "native"] = "square"
    readout: Readout = "pooled"
    batch_size: int = 256
    workers: int | None = None
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    cache: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("size", "resize", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; it must be 1 or more")
        if self.workers is not None and self.workers < 0:
            raise ValueError(f"workers is {self.workers}; it must be 0 or more")
        if self.size is not None and self.resize is not None and self.resize < self.size:
            raise ValueError(f"resize is {self.resize}, less than the crop of {self.size}; use {self.size} or more")

    def of_protocol(self) -> dict[str, Any]:
        """The settings that decide the numbers, not how fast or where they are computed."""
        fields = dataclasses.asdict(self)
        return {
            name: value for name, value in fields.items() if name not in ("batch_size", "workers", "device", "cache")
        }
