"""The baseline that a representation must beat: the pixels themselves."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from polygrain.data.photometric import IMAGENET, Normalisation
from polygrain.parts.encoder import Features

SIDE = 16  # pixels


class RawPixels(nn.Module):
    """An encoder without weights: 16x16 RGB pixels, mean removed; its patches are blocks of pixels of the image.

    Args:
        patch_size: side of a patch, in pixels.
        image_size: side of the image it is shown unless told otherwise.
    """

    channels = 3
    mean: Tensor  # (3, 1, 1)
    std: Tensor  # (3, 1, 1)

    def __init__(self, *, patch_size: int = 8, image_size: int = 64, normalisation: Normalisation = IMAGENET) -> None:
        super().__init__()
        self.stride, self.image_size, self.dim = patch_size, image_size, 3 * SIDE**2
        self.register_buffer("mean", torch.tensor(normalisation.mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(normalisation.std).view(3, 1, 1))

    def features(self, pixels: Tensor) -> Features:
        """(B, 3, H, W) normalised to pooled (B, 768), patches (B, N, 3 * patch_size ** 2)."""
        image = pixels * self.std + self.mean  # undo the normalisation
        small = F.adaptive_avg_pool2d(image, SIDE).flatten(1)
        pooled = small - small.mean(dim=1, keepdim=True)
        patches = F.unfold(image, self.stride, stride=self.stride).transpose(1, 2)
        return Features(pooled, patches, pooled, (image.shape[2] // self.stride, image.shape[3] // self.stride))

    def check_size(self, size: int) -> None:
        """Whether pictures of this size can be reduced to 16x16 pixels and cut into patches.

        Raises:
            ValueError: when they cannot.
        """
        if size < SIDE or size % self.stride:
            raise ValueError(f"raw pixels need a crop of {SIDE} px or more that {self.stride} divides, not {size} px")
