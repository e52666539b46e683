"""Reconstruction: predict the pixels of an image from what the encoder was shown of it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from polygrain.losses.reconstruction import masked_mean_square, mean_difference, normalised_patches
from polygrain.objectives.base import DeadValue, Objective
from polygrain.parts.decoder import PatchDecoder, TokenDecoder, patch_pixels
from polygrain.schedules import Time
from polygrain.views import Encoding, grid_shape

BLIND = DeadValue(
    low=0.0,
    high=1e-3,
    meaning="the decoder predicts the same for every patch",
    mend="lower the learning rate, or lengthen the warm-up",
)


class HiddenPixels(Objective):
    """Mean squared error of the pixels of hidden patches, predicted from the visible ones (MAE, arXiv:2111.06377).

    Args:
        decoder: from what was shown to all patches.
        patch: side of a patch, in pixels.
        normalise: targets are each patch less its mean, over its deviation.
    """

    granularity = "region"

    def __init__(self, decoder: TokenDecoder, *, patch: int, normalise: bool) -> None:
        super().__init__()
        self.decoder = decoder
        self.patch = patch
        self.normalise = normalise
        self.dead_values = {"prediction_spread": BLIND}

    def forward(self, student: Sequence[Encoding], teacher: Sequence[Encoding], time: Time) -> dict[str, Tensor]:
        losses, spreads = [], []
        for encoding in student:
            assert encoding.hidden is not None
            targets = patch_pixels(encoding.view.pixels, self.patch)  # (B, N, P)
            predictions = self.decoder(encoding.pooled, encoding.patches, encoding.hidden)
            targets = normalised_patches(targets) if self.normalise else targets
            losses.append(masked_mean_square(predictions, targets, encoding.hidden))
            spreads.append(deviation(predictions))
        self.gauges = {"prediction_spread": torch.stack(spreads).mean()}
        return {"mean_square": torch.stack(losses).mean()}


class WholePixels(Objective):
    """Mean absolute error of all pixels of large views of which patches were replaced (MST, arXiv:2106.05656).

    Args:
        patch: side of a patch, in pixels.
        large_views: how many of the student's views, the first ones, are restored.
    """

    granularity = "region"

    def __init__(self, decoder: PatchDecoder, *, patch: int, large_views: int = 2) -> None:
        super().__init__()
        self.decoder = decoder
        self.patch = patch
        self.large_views = large_views
        self.dead_values = {"prediction_spread": BLIND}

    def forward(self, student: Sequence[Encoding], teacher: Sequence[Encoding], time: Time) -> dict[str, Tensor]:
        large = student[: self.large_views]
        pixels = torch.cat([encoding.view.pixels for encoding in large])  # (V B, C, H, W)
        patches = torch.cat([encoding.patches for encoding in large])
        predictions = self.decoder(patches, grid_shape(patches.shape[1], pixels))
        self.gauges = {"prediction_spread": deviation(predictions)}
        return {"mean_difference": mean_difference(predictions, patch_pixels(pixels, self.patch))}


@torch.no_grad()
def deviation(predictions: Tensor) -> Tensor:
    """How far the predictions (B, N, P) for different patches lie apart: 0 when all are the same."""
    return predictions.float().flatten(0, 1).std(dim=0, correction=0).mean()
