"""Which vector stands for an image."""

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor

from polygrain.evaluate.pixels import RawPixels
from polygrain.evaluate.settings import Readout
from polygrain.parts.encoder import Encoder

IN_WORDS: dict[str, str] = {
    "pooled": "pooled vector of the backbone after its final norm",
    "mean": "mean of the last patches after the final norm",
    "cls1": "class token of the last block after the final norm",
    "cls4": "class tokens of the last 4 blocks, each after the final norm, concatenated",
    "cls1+mean": "class token of the last block and mean of its patches, after the final norm, concatenated",
    "cls4+mean": "class tokens of the last 4 blocks and mean of the last patches, after the final norm, concatenated",
}


class Read(NamedTuple):
    """What was read out of one batch."""

    vectors: Tensor  # (B, D)
    patches: Tensor  # (B, N, D) row-major, of the last level, after the final norm
    grid: tuple[int, int]


def check_readout(encoder: Encoder | RawPixels, readout: Readout) -> None:
    """Whether this encoder has such a vector.

    Raises:
        ValueError: when it has not.
    """
    if readout == "pooled":
        return
    if isinstance(encoder, RawPixels):
        raise ValueError(f"raw pixels have no readout {readout!r}; use pooled")
    if "cls" in readout and (encoder.family != "vit" or encoder.model.cls_token is None):
        raise ValueError(f"{encoder.settings.name} has no class token for readout {readout!r}; use pooled or mean")
    if "cls4" in readout and encoder.depth < 4:
        raise ValueError(f"{encoder.settings.name} has {encoder.depth} blocks, and {readout!r} takes 4; use cls1")


def read_out(encoder: Encoder | RawPixels, pixels: Tensor, readout: Readout) -> Read:
    """The vectors and patches of a batch of views (B, C, H, W)."""
    if isinstance(encoder, RawPixels) or "cls" not in readout:
        seen = encoder.features(pixels)
        vectors = seen.pooled if readout == "pooled" else seen.patches.mean(1)
        return Read(vectors, seen.patches, seen.grid)
    levels = encoder.levels(pixels, 4 if "cls4" in readout else 1)
    parts = [level.cls for level in levels if level.cls is not None]
    patches = levels[-1].map.flatten(2).transpose(1, 2)
    if readout.endswith("+mean"):
        parts.append(patches.mean(1))
    rows, columns = levels[-1].map.shape[2:]
    return Read(torch.cat(parts, dim=1), patches, (rows, columns))


def covering(readouts: Sequence[Readout]) -> Readout:
    """The one readout that holds all of these, so that one pass of the encoder serves them all.

    Args:
        readouts: "pooled" alone, or any of the others.
    """
    if "pooled" in readouts:
        return "pooled"
    tokens = "cls4" if any("cls4" in r for r in readouts) else "cls1" if any("cls1" in r for r in readouts) else ""
    means = "mean" if any("mean" in r for r in readouts) else ""
    return cast(Readout, "+".join(part for part in (tokens, means) if part))


def columns(readout: Readout, whole: Readout, width: int) -> slice:
    """Where the vector of `readout` lies in that of `whole`, which covers it and is `width` wide."""
    if readout == whole:
        return slice(0, width)
    parts = _tokens(whole) + ("mean" in whole)
    last = width if "mean" in readout else width // parts * _tokens(whole)
    return slice(last - width // parts * (_tokens(readout) + ("mean" in readout)), last)


def _tokens(readout: Readout) -> int:
    return 4 if "cls4" in readout else 1 if "cls1" in readout else 0
