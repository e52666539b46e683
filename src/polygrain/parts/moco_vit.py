"""A ViT as MoCo-v3 starts it: fixed position codes, its own initialisation, a patch projection that stays random."""

import math
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from polygrain.parts.encoder import Encoder
from polygrain.parts.sincos import sincos_positions


@torch.no_grad()
def start_as_mocov3(encoder: Encoder, *, freeze_patches: bool) -> None:
    """Xavier-uniform weights, zero biases, row-first sine-cosine positions (MoCo-v3, arXiv:2104.02057, sec. 4 to 5).

    The matrices of query, key and value have bounds of their own, though they are one tensor. Position codes never
    train.

    Args:
        freeze_patches: the patch projection never trains either, which made training stable (sec. 4.1).

    Raises:
        ValueError: when the encoder is not a plain ViT with a class token and a grid of patches.
    """
    model: Any = encoder.model
    if type(model) is not VisionTransformer or model.pos_embed is None or model.cls_token is None:
        raise ValueError(
            f"MoCo-v3 trains plain ViTs with a class token and a position code for each patch; "
            f"{encoder.settings.name} is a {type(model).__name__} without one of these"
        )
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    blocks: Any = model.blocks
    for block in blocks:
        joined = block.attn.qkv.weight  # (3 D, D)
        bound = math.sqrt(6 / (joined.shape[0] // 3 + joined.shape[1]))
        nn.init.uniform_(joined, -bound, bound)
    nn.init.normal_(model.cls_token, std=1e-6)
    projection = model.patch_embed.proj
    bound = math.sqrt(6 / (projection.weight[0].numel() + encoder.dim))
    nn.init.uniform_(projection.weight, -bound, bound)
    nn.init.zeros_(projection.bias)
    prefix = model.pos_embed.shape[1] - model.patch_embed.num_patches
    model.pos_embed.copy_(sincos_positions(model.patch_embed.grid_size, encoder.dim, first="row", prefix=prefix))
    model.pos_embed.requires_grad_(False)
    projection.requires_grad_(not freeze_patches)
