"""Position codes of a ViT at crop sizes other than its own, as DINO and Mugs resample them."""

from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor


def resample_as_dino(positions: Tensor, grid: tuple[int, int], wanted: tuple[int, int]) -> Tensor:
    """Position codes of a `wanted` grid of patches, prefix entries untouched: (1, P + N, D) to (1, P + M, D).

    Bicubic, without antialiasing, corners not aligned; the coordinates use the factor (n + 0.1) / grid and not
    n / grid, a safeguard against rounding in the authors' code with which their networks were trained (DINO,
    arXiv:2104.14294; Mugs, arXiv:2203.14415; official repositories).
    """
    if grid == wanted:
        return positions
    prefix = positions.shape[1] - grid[0] * grid[1]
    patches = positions[:, prefix:].float().reshape(1, *grid, -1).permute(0, 3, 1, 2)  # (1, D, rows, columns)
    factors = [(new + 0.1) / old for new, old in zip(wanted, grid, strict=True)]
    resized = F.interpolate(patches, scale_factor=factors, mode="bicubic", align_corners=False)
    assert tuple(resized.shape[-2:]) == wanted
    return torch.cat([positions[:, :prefix], resized.flatten(2).transpose(1, 2).to(positions.dtype)], dim=1)


def _add_positions(model: Any, patches: Tensor) -> Tensor:
    """What timm's `_pos_embed` does, with DINO's resampling: (B, rows, columns, D) to (B, P + N, D)."""
    count, rows, columns, _ = patches.shape
    positions = resample_as_dino(model.pos_embed, model.patch_embed.grid_size, (rows, columns))
    prefix = [token.expand(count, -1, -1) for token in (model.cls_token, model.reg_token) if token is not None]
    tokens = patches.flatten(1, 2)
    if model.no_embed_class:
        tokens = torch.cat([*prefix, tokens + positions], dim=1)
    else:
        tokens = torch.cat([*prefix, tokens], dim=1) + positions
    return model.pos_drop(tokens)  # type: ignore[no-any-return]  # of a timm model


def use_dino_positions(model: Any) -> None:
    """Makes this ViT resample its position codes as DINO does.

    Raises:
        ValueError: when it has no learned position codes, or prefix tokens that DINO's layout does not know.
    """
    plain = type(model) is VisionTransformer
    if not plain or model.pos_embed is None:
        raise ValueError(
            f'position="dino" needs a plain ViT with learned positions, not {type(model).__name__}; use "timm"'
        )
    model._pos_embed = MethodType(_add_positions, model)
