"""A frozen backbone as a map of vectors, and heads that turn it into logits."""

import copy
import dataclasses
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from polygrain.evaluate.pixels import RawPixels
from polygrain.parts.encoder import Encoder


class Dense(nn.Module):
    """Maps of the last blocks or stages of a frozen copy, side by side, brought to the size of the finest.

    Each of a ViT's is after the final norm; maps of the other families are as they come (VICRegL, arXiv:2210.01571,
    official `segmentation`). Raw pixels give their patches.

    Args:
        levels: how many of the last ones.

    Attributes:
        dim: channels of the map.
        stride: sides of the images must be multiples of it.

    Raises:
        ValueError: when the backbone has fewer levels.
    """

    def __init__(self, encoder: Encoder | RawPixels, levels: int = 1) -> None:
        super().__init__()
        depth = encoder.depth if isinstance(encoder, Encoder) else 1
        if levels > depth:
            raise ValueError(f"levels is {levels}, and this backbone has {depth}; choose 1 to {depth}")
        self.encoder, self.levels = copy.deepcopy(encoder).requires_grad_(False).eval(), levels
        self.stride = encoder.stride
        with torch.no_grad():
            device = next((p.device for p in encoder.parameters()), torch.device("cpu"))
            probe = torch.zeros(1, encoder.channels, *[max(self.stride, encoder.image_size)] * 2, device=device)
            self.dim = self(probe).shape[1]

    def train(self, mode: bool = True) -> "Dense":
        """Stays in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> Tensor:
        """(B, C, H, W) to (B, dim, rows, columns)."""
        if isinstance(self.encoder, RawPixels):
            seen = self.encoder.features(pixels)
            return as_map(seen.patches, seen.grid)
        maps = [level.map for level in self.encoder.levels(pixels, self.levels)]
        size = max((found.shape[-2:] for found in maps), key=lambda sides: sides[0])
        same = [found if found.shape[-2:] == size else enlarged(found, size) for found in maps]
        return torch.cat(same, dim=1)


class LinearHead(nn.Sequential):
    """BatchNorm, dropout of channels, 1x1 convolution with weights from N(0, 0.01)."""

    def __init__(self, dim: int, classes: int, *, batch_norm: bool, dropout: float) -> None:
        convolution = nn.Conv2d(dim, classes, kernel_size=1)
        nn.init.normal_(convolution.weight, std=0.01)
        nn.init.constant_(convolution.get_parameter("bias"), 0)
        norm: nn.Module = nn.BatchNorm2d(dim) if batch_norm else nn.Identity()
        super().__init__(norm, nn.Dropout2d(dropout), convolution)


class OnMaps(nn.Module):
    """A head of vectors (n, D), applied to each position of a map."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, maps: Tensor) -> Tensor:
        """(B, D, rows, columns) to (B, C, rows, columns)."""
        rows = maps.movedim(1, -1)
        logits: Tensor = self.head(rows.flatten(0, 2))
        return logits.view(*rows.shape[:3], -1).movedim(-1, 1)


class Heads(nn.ModuleList):
    """Several heads on one map: their logits behind each other (B, heads * C, rows, columns)."""

    def forward(self, maps: Tensor) -> Tensor:
        return torch.cat([head(maps) for head in self], dim=1)


def not_finite(name: str) -> ValueError:
    """What to say of an image whose features are no numbers."""
    return ValueError(f"the encoder's features of {name!r} are not finite; its weights may be damaged")


def as_map(patches: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B, N, D) row-major to (B, D, rows, columns)."""
    return patches.transpose(1, 2).reshape(len(patches), -1, *grid)


def enlarged(maps: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """Bilinear, corners not aligned."""
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)


def dilated(encoder: Encoder, output_stride: int) -> Encoder:
    """The same ResNet with its last stages dilated instead of strided, so that its map is finer.

    Raises:
        ValueError: for another family.
    """
    if encoder.family != "resnet":
        raise ValueError(f"output_stride is {output_stride}, and a {encoder.family} has none; only ResNets do")
    return rebuilt(encoder, output_stride=output_stride)


def rebuilt(encoder: Encoder, **arguments: Any) -> Encoder:
    """A copy of an encoder with its weights, built with other arguments of timm, of those that change no weight."""
    settings = dataclasses.replace(
        encoder.settings, arguments={**encoder.settings.arguments, **arguments}, pretrained=False
    )
    copied = Encoder(settings)
    copied.model.load_state_dict(encoder.model.state_dict())
    return copied.to(next(encoder.parameters()).device)
