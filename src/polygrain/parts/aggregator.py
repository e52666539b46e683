"""Attention between a view and its neighbours."""

import torch
from timm.layers.norm import LayerNorm  # its epsilon is 1e-6
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from polygrain.parts.heads import truncated_normal_init


class Aggregator(nn.Module):
    """Transformer blocks over a query and its k neighbours, without positional code; returns the query's token.

    The output does not depend on the order of the neighbours, and is before any final norm. The paper speaks of a
    two-layer ViT; the official code, and by their sizes the released weights, have one block without drop path
    (Mugs, arXiv:2203.14415, sec. 3.2; 10ab634, src/vision_transformer.py, "relation blocks").
    """

    def __init__(self, dim: int, *, depth: int, heads: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            Block(dim, heads, mlp_ratio=4.0, qkv_bias=True, norm_layer=LayerNorm) for _ in range(depth)
        )
        truncated_normal_init(self)

    def forward(self, query: Tensor, neighbours: Tensor) -> Tensor:
        """(R, D) and (R, k, D) to (R, D)."""
        tokens = torch.cat([query[:, None], neighbours.to(query)], dim=1)  # (R, 1 + k, D)
        for block in self.blocks:
            tokens = block(tokens)
        return tokens[:, 0]
