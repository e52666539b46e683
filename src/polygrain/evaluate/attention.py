"""What the last block of a ViT attends to, head by head."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from polygrain.evaluate.features import evaluating
from polygrain.parts.encoder import Encoder


class Attention(NamedTuple):
    """Rows of the last block's attention for one query."""

    rows: Tensor  # (B, heads, P + N) over all keys, prefix tokens first; each sums to 1
    prefix: int  # P, number of class and register tokens
    grid: tuple[int, int]  # rows, columns of the patches
    query: str  # in words: whose attention it is

    def maps(self) -> Tensor:
        """(B, heads, rows, columns): what goes to the patches."""
        return self.rows[..., self.prefix :].reshape(*self.rows.shape[:2], *self.grid)


def has_attention(encoder: Encoder) -> bool:
    """Whether the last block is a plain one: a norm, then one attention with a query, a key and a value a head.

    Others in timm have two attentions side by side, one fused with the MLP, one that is the difference of two, or the
    norm behind it (those without `ls1`).
    """
    block: Any = encoder.model.blocks[-1] if encoder.family == "vit" else None
    own: Any = getattr(block, "attn", None)
    if not hasattr(own, "qkv") or not hasattr(block, "norm1") or not hasattr(block, "ls1"):
        return False
    return bool(own.qkv.out_features == 3 * own.num_heads * own.head_dim)


@torch.no_grad()
def last_attention(encoder: Encoder, pixels: Tensor) -> Attention:
    """Attention of the class token in the last block or, in a ViT without one, of the mean query over the patches.

    Fused attention does not give its weights away; those of one query are computed a second time, from the block's own
    queries and keys: softmax(q k' / sqrt(d)) (the map of DINO, arXiv:2104.14294, official `visualize_attention.py`).

    Args:
        pixels: (B, C, H, W), normalised.

    Raises:
        ValueError: when the encoder is no ViT whose blocks have an ordinary attention.
    """
    if not has_attention(encoder):
        raise ValueError(f"{encoder.settings.name} has no attention to look at; that takes a plain ViT")
    block: Any = encoder.model.blocks[-1]
    inputs: list[Tensor] = []
    handle = block.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    try:
        with evaluating(encoder):
            grid = encoder.features(pixels).grid
            query, key = queries_and_keys(block, inputs[0])
    finally:
        handle.remove()
    prefix = encoder.model.num_prefix_tokens
    has_class = encoder.model.cls_token is not None
    one = query[:, :, 0] if has_class else query[:, :, prefix:].mean(2)  # (B, heads, d)
    products = torch.einsum("bhd,bhkd->bhk", one.float(), key.float()) * block.attn.scale
    return Attention(
        products.softmax(-1), prefix, grid, "the class token" if has_class else "the mean query of all patches"
    )


def queries_and_keys(block: Any, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Of a timm block for its input (B, P + N, D): (B, heads, P + N, d) each."""
    own = block.attn
    mixed = own.qkv(block.norm1(tokens)).unflatten(-1, (3, own.num_heads, own.head_dim))
    query, key, _ = mixed.permute(2, 0, 3, 1, 4)
    return own.q_norm(query), own.k_norm(key)


def largest_mass(maps: Tensor, mass: float) -> Tensor:
    """The fewest cells of each map that together hold this share of it (DINO's threshold on attention).

    Args:
        maps: (..., rows, columns), not negative.

    Returns:
        The same shape, bool; with a mass of 1, every cell.
    """
    flat = maps.flatten(-2).double()
    shares = flat / flat.sum(-1, keepdim=True)
    falling, order = shares.sort(dim=-1, descending=True, stable=True)
    before = falling.cumsum(-1) - falling
    kept = before < mass if mass < 1 else torch.ones_like(before, dtype=torch.bool)
    return torch.zeros_like(kept).scatter(-1, order, kept).view(maps.shape)
