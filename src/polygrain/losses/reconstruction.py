"""How far predicted pixels are from those of a view."""

import torch
from torch import Tensor


def normalised_patches(patches: Tensor) -> Tensor:
    """Each patch (..., P) less its mean, over the square root of its variance (over P - 1) plus 1e-6: float32."""
    patches = patches.float()
    variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    return (patches - mean) / (variance + 1e-6).sqrt()


def masked_mean_square(predictions: Tensor, targets: Tensor, hidden: Tensor) -> Tensor:
    """Mean squared difference of the hidden patches alone (MAE, arXiv:2111.06377, sec. 3).

    Args:
        predictions: (B, N, P).
        targets: (B, N, P).
        hidden: (B, N) bool; as many in every image, at least one.
    """
    with torch.autocast(predictions.device.type, enabled=False):
        errors = (predictions.float() - targets.float()).square().mean(-1)  # (B, N)
        return errors[hidden].mean()


def mean_difference(predictions: Tensor, targets: Tensor) -> Tensor:
    """Mean absolute difference over everything."""
    with torch.autocast(predictions.device.type, enabled=False):
        return (predictions.float() - targets.float()).abs().mean()
