"""Decoders: from the tokens of a ViT back to pixels."""

from typing import Any

import torch
from timm.layers.norm import LayerNorm
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from polygrain.parts.sincos import sincos_positions


class TokenDecoder(nn.Module):
    """A small transformer over all patches, those that were hidden as mask tokens (MAE, arXiv:2111.06377, sec. 3).

    Args:
        dim: width of the encoder.
        width: of the decoder.
        depth: number of its blocks.
        heads: of its attention.
        grid: rows and columns of the patches.
        out: numbers predicted for each patch.
    """

    positions: Tensor  # (1, 1 + N, width)

    def __init__(self, dim: int, *, width: int, depth: int, heads: int, grid: tuple[int, int], out: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"a decoder of width {width} cannot have {heads} heads; its width must be a multiple")
        self.embed = nn.Linear(dim, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.register_buffer("positions", sincos_positions(grid, width, first="column"))
        self.blocks = nn.Sequential(*(Block(width, heads, qkv_bias=True, norm_layer=LayerNorm) for _ in range(depth)))
        self.norm = LayerNorm(width)
        self.predict = nn.Linear(width, out)
        xavier_init(self)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, pooled: Tensor, patches: Tensor, hidden: Tensor) -> Tensor:
        """Class tokens (B, D) and the patches that were shown (B, M, D) to predictions for all (B, N, out).

        Args:
            hidden: (B, N) bool.
        """
        tokens = self.embed(torch.cat([pooled[:, None], patches], dim=1))  # (B, 1 + M, width)
        whole = self.mask_token.to(tokens.dtype).repeat(*hidden.shape, 1)  # (B, N, width)
        whole = whole.masked_scatter(~hidden[..., None], tokens[:, 1:])
        tokens = torch.cat([tokens[:, :1], whole], dim=1) + self.positions
        predictions: Tensor = self.predict(self.norm(self.blocks(tokens)))[:, 1:]
        return predictions


class PatchDecoder(nn.Module):
    """Patches (B, N, D) to predictions (B, N, out): a linear layer, by default after a 3x3 convolution.

    MST (arXiv:2106.05656) has "a global image decoder" of which no code is public; this one is our choice.

    Args:
        convolve: let each patch see its neighbours first (convolution, batch norm, ReLU).
    """

    def __init__(self, dim: int, out: int, *, convolve: bool) -> None:
        super().__init__()
        self.mix = nn.Sequential(
            nn.Conv2d(dim, dim, kernel_size=3, padding=1, bias=False), nn.BatchNorm2d(dim), nn.ReLU()
        )
        if not convolve:
            self.mix = nn.Sequential()
        self.predict = nn.Linear(dim, out)

    def forward(self, patches: Tensor, grid: tuple[int, int]) -> Tensor:
        maps = self.mix(patches.transpose(1, 2).reshape(len(patches), -1, *grid))  # (B, D, rows, columns)
        predictions: Tensor = self.predict(maps.flatten(2).transpose(1, 2))
        return predictions


@torch.no_grad()
def xavier_init(module: nn.Module) -> None:
    """Linear layers uniform after Glorot with biases of 0, norms at 1 and 0 (MAE)."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.LayerNorm):
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)


@torch.no_grad()
def begin_as_mae(model: Any) -> None:
    """A timm ViT as MAE begins: linear layers as in `xavier_init`, fixed codes of sines, class token N(0, 0.02).

    Raises:
        ValueError: when it has no position codes, or other prefix tokens than a class token.
    """
    codes = sincos_positions(model.patch_embed.grid_size, model.embed_dim, first="column")
    if model.cls_token is None or model.pos_embed is None or model.pos_embed.shape != codes.shape:
        raise ValueError("this needs a plain ViT, with a class token and a position code for it and for each patch")
    xavier_init(model)
    nn.init.xavier_uniform_(model.patch_embed.proj.weight.flatten(1))  # a view: the kernel as a linear layer
    nn.init.normal_(model.cls_token, std=0.02)
    model.pos_embed.copy_(codes)
    model.pos_embed.requires_grad_(False)


def patch_pixels(pixels: Tensor, side: int) -> Tensor:
    """(B, C, H, W) to (B, N, side side C): the pixels of each patch row by row, channels last."""
    count, channels, height, width = pixels.shape
    cells = pixels.reshape(count, channels, height // side, side, width // side, side)
    return cells.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
