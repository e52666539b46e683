"""The tokens of a ViT, from pixels to the last block, where some patches may be hidden on the way."""

from typing import Any, Literal, NamedTuple

import torch
from timm.models import checkpoint
from torch import Tensor

Hides = Literal["never", "replace", "drop"]


class Tokens(NamedTuple):
    """What comes out of the last block, prefix tokens first."""

    last: Tensor  # (B, P + N, D) before the final norm
    attention: Tensor | None  # (B, N) of the class token to each patch in the last block, mean over heads


def run(model: Any, pixels: Tensor, hidden: Tensor | None, mask_token: Tensor | None, *, watched: bool) -> Tokens:
    """All blocks of a timm ViT.

    Args:
        hidden: (B, N) bool patches not to be shown: replaced by the mask token before they get their position codes
            (iBOT, arXiv:2111.07832), or, without one, left out afterwards (MAE, arXiv:2111.06377), in which case all
            images must hide equally many.
        mask_token: (1, D).
        watched: also compute the attention of the class token in the last block.
    """
    patches = model.patch_embed(pixels)  # (B, rows, columns, D), or (B, N, D) in a ViT of one size
    if hidden is not None and mask_token is not None:
        patches = torch.where(hidden.view(*patches.shape[:-1], 1), mask_token.to(patches.dtype), patches)
    tokens = model._pos_embed(patches)
    if hidden is not None and mask_token is None:
        prefix = tokens.shape[1] - hidden.shape[1]
        tokens = torch.cat([tokens[:, :prefix], shown(tokens[:, prefix:], hidden)], dim=1)
    tokens = model.norm_pre(model.patch_drop(tokens))
    attention = None
    for i, block in enumerate(model.blocks):
        if watched and i == len(model.blocks) - 1:
            attention = class_attention(block, tokens, model.num_prefix_tokens)
        tokens = checkpoint(block, tokens) if model.grad_checkpointing else block(tokens)
    return Tokens(tokens, attention)


def shown(vectors: Tensor, hidden: Tensor) -> Tensor:
    """Those of (B, N, ...) that are not hidden, in their order: (B, M, ...)."""
    count = len(hidden)
    return vectors[~hidden].view(count, -1, *vectors.shape[2:])


@torch.no_grad()
def class_attention(block: Any, tokens: Tensor, prefix: int) -> Tensor:
    """How much the class token of a timm block attends to each patch, mean over heads: (B, P + N, D) to (B, N).

    Fused attention does not give its weights away, so those of one query are computed a second time.
    """
    own = block.attn
    count, length, _ = tokens.shape
    mixed = own.qkv(block.norm1(tokens)).reshape(count, length, 3, own.num_heads, own.head_dim)
    query, key = own.q_norm(mixed[:, :1, 0]), own.k_norm(mixed[:, :, 1])  # (B, 1, heads, d), (B, P + N, heads, d)
    products = torch.einsum("bqhd,bkhd->bhk", query.float(), key.float()) * own.scale
    attention: Tensor = products.softmax(-1).mean(1)[:, prefix:]
    return attention
