"""Random backbones in the authors' layouts, and plain forward passes over their state dicts.

Written from the papers and the descriptions of the layouts: independent of timm and of the encoder under test.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

State = dict[str, Tensor]


class _Draw:
    """Random tensors of sizes that keep activations of order one, norms off their identity."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.state: State = {}

    def weight(self, name: str, *shape: int) -> None:
        fan_in = math.prod(shape[1:])
        self.state[name] = torch.randn(*shape, generator=self.generator) / math.sqrt(fan_in)

    def affine(self, name: str, width: int) -> None:
        self.state[f"{name}.weight"] = 1 + 0.2 * torch.randn(width, generator=self.generator)
        self.state[f"{name}.bias"] = 0.2 * torch.randn(width, generator=self.generator)

    def linear(self, name: str, *shape: int) -> None:
        self.weight(f"{name}.weight", *shape)
        self.state[f"{name}.bias"] = 0.1 * torch.randn(shape[0], generator=self.generator)

    def batch_norm(self, name: str, width: int) -> None:
        self.affine(name, width)
        self.state[f"{name}.running_mean"] = 0.2 * torch.randn(width, generator=self.generator)
        self.state[f"{name}.running_var"] = 0.5 + torch.rand(width, generator=self.generator)
        self.state[f"{name}.num_batches_tracked"] = torch.tensor(7)


def random_vit(dim: int = 384, depth: int = 12, patch: int = 16, grid: int = 14, relation: bool = True) -> State:
    draw = _Draw(0)
    draw.weight("cls_token", 1, 1, dim)
    draw.weight("pos_embed", 1, 1 + grid * grid, dim)
    draw.linear("patch_embed.proj", dim, 3, patch, patch)
    blocks = [f"blocks.{i}" for i in range(depth)] + (["relation_blocks.0"] if relation else [])
    for block in blocks:
        draw.affine(f"{block}.norm1", dim)
        draw.linear(f"{block}.attn.qkv", 3 * dim, dim)
        draw.linear(f"{block}.attn.proj", dim, dim)
        draw.affine(f"{block}.norm2", dim)
        draw.linear(f"{block}.mlp.fc1", 4 * dim, dim)
        draw.linear(f"{block}.mlp.fc2", dim, 4 * dim)
    draw.affine("norm", dim)
    return draw.state


def vit_tokens(state: State, pixels: Tensor, heads: int) -> Tensor:
    """(B, 1 + N, D) tokens after the final norm; DINO's position codes."""
    patch = state["patch_embed.proj.weight"].shape[-1]
    x = F.conv2d(pixels, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=patch)
    count, dim, rows, columns = x.shape
    x = torch.cat([state["cls_token"].expand(count, 1, dim), x.reshape(count, dim, -1).mT], dim=1)
    codes = state["pos_embed"]
    side = math.isqrt(codes.shape[1] - 1)
    if (rows, columns) != (side, side):
        factors = ((rows + 0.1) / side, (columns + 0.1) / side)
        square = codes[:, 1:].reshape(1, side, side, dim).permute(0, 3, 1, 2)
        square = F.interpolate(square, scale_factor=factors, mode="bicubic")
        codes = torch.cat([codes[:, :1], square.reshape(1, dim, -1).mT], dim=1)
    x = x + codes
    depth = len({key.split(".")[1] for key in state if key.startswith("blocks.")})
    for i in range(depth):
        own = {
            key.removeprefix(f"blocks.{i}."): value for key, value in state.items() if key.startswith(f"blocks.{i}.")
        }
        x = vit_block(own, x, heads)
    return F.layer_norm(x, (dim,), state["norm.weight"], state["norm.bias"], 1e-6)


def vit_block(own: State, x: Tensor, heads: int) -> Tensor:
    count, length, dim = x.shape
    y = F.layer_norm(x, (dim,), own["norm1.weight"], own["norm1.bias"], 1e-6)
    y = F.linear(y, own["attn.qkv.weight"], own["attn.qkv.bias"])
    query, key, value = y.reshape(count, length, 3, heads, dim // heads).permute(2, 0, 3, 1, 4)
    mixed = torch.softmax(query @ key.mT / math.sqrt(dim // heads), dim=-1) @ value
    mixed = mixed.transpose(1, 2).reshape(count, length, dim)
    x = x + F.linear(mixed, own["attn.proj.weight"], own["attn.proj.bias"])
    y = F.layer_norm(x, (dim,), own["norm2.weight"], own["norm2.bias"], 1e-6)
    y = F.gelu(F.linear(y, own["mlp.fc1.weight"], own["mlp.fc1.bias"]))
    return x + F.linear(y, own["mlp.fc2.weight"], own["mlp.fc2.bias"])


RESNET50 = ((64, 3), (128, 4), (256, 6), (512, 3))  # width and number of the bottlenecks of each stage


def random_resnet() -> State:
    draw = _Draw(1)
    draw.weight("conv1.weight", 64, 3, 7, 7)
    draw.batch_norm("bn1", 64)
    before = 64
    for stage, (width, blocks) in enumerate(RESNET50, start=1):
        for block in range(blocks):
            name = f"layer{stage}.{block}"
            for conv, (out, into, side) in enumerate(
                ((width, before, 1), (width, width, 3), (4 * width, width, 1)), start=1
            ):
                draw.weight(f"{name}.conv{conv}.weight", out, into, side, side)
                draw.batch_norm(f"{name}.bn{conv}", out)
            if block == 0:
                draw.weight(f"{name}.downsample.0.weight", 4 * width, before, 1, 1)
                draw.batch_norm(f"{name}.downsample.1", 4 * width)
            before = 4 * width
    return draw.state


def resnet_map(state: State, pixels: Tensor) -> Tensor:
    """(B, 2048, rows, columns) the last map; stride in the 3x3 convolution, zero padding of 3 at the stem."""

    def norm(name: str, x: Tensor) -> Tensor:
        mean, var, gain, bias = (state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, mean, var, gain, bias, eps=1e-5)

    # as the authors write it: padded by 1, then a convolution that pads by 2
    x = F.conv2d(F.pad(pixels, (1, 1, 1, 1)), state["conv1.weight"], stride=2, padding=2)
    x = F.max_pool2d(F.relu(norm("bn1", x)), 3, stride=2, padding=1)
    for stage, (_, blocks) in enumerate(RESNET50, start=1):
        for block in range(blocks):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            y = F.relu(norm(f"{name}.bn1", F.conv2d(x, state[f"{name}.conv1.weight"])))
            y = F.relu(norm(f"{name}.bn2", F.conv2d(y, state[f"{name}.conv2.weight"], stride=stride, padding=1)))
            y = norm(f"{name}.bn3", F.conv2d(y, state[f"{name}.conv3.weight"]))
            if block == 0:
                short = F.conv2d(x, state[f"{name}.downsample.0.weight"], stride=stride)
                x = norm(f"{name}.downsample.1", short)
            x = F.relu(x + y)
    return x


CONVNEXT_S = ((96, 3), (192, 3), (384, 27), (768, 3))


def random_convnext() -> State:
    draw = _Draw(2)
    before = 3
    for stage, (width, blocks) in enumerate(CONVNEXT_S):
        side = 4 if stage == 0 else 2
        conv, norm = (0, 1) if stage == 0 else (1, 0)  # the stem norms last, the others first
        draw.linear(f"downsample_layers.{stage}.{conv}", width, before, side, side)
        draw.affine(f"downsample_layers.{stage}.{norm}", width if stage == 0 else before)
        for block in range(blocks):
            name = f"stages.{stage}.{block}"
            draw.linear(f"{name}.dwconv", width, 1, 7, 7)
            draw.affine(f"{name}.norm", width)
            draw.linear(f"{name}.pwconv1", 4 * width, width)
            draw.linear(f"{name}.pwconv2", width, 4 * width)
        before = width
    draw.affine("norm", before)
    return draw.state


def convnext_map(state: State, pixels: Tensor) -> Tensor:
    """(B, rows, columns, 768) the last map, normed at every position."""

    def norm(name: str, x: Tensor) -> Tensor:  # over channels, which are last
        return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)

    def convolved(name: str, x: Tensor, **how: int) -> Tensor:
        y = F.conv2d(x.permute(0, 3, 1, 2), state[f"{name}.weight"], state[f"{name}.bias"], **how)
        return y.permute(0, 2, 3, 1)

    x = pixels.permute(0, 2, 3, 1)
    for stage, (width, blocks) in enumerate(CONVNEXT_S):
        name = f"downsample_layers.{stage}"
        if stage == 0:
            x = norm(f"{name}.1", convolved(f"{name}.0", x, stride=4))
        else:
            x = convolved(f"{name}.1", norm(f"{name}.0", x), stride=2)
        for block in range(blocks):
            name = f"stages.{stage}.{block}"
            y = norm(f"{name}.norm", convolved(f"{name}.dwconv", x, padding=3, groups=width))
            y = F.gelu(F.linear(y, state[f"{name}.pwconv1.weight"], state[f"{name}.pwconv1.bias"]))
            x = x + F.linear(y, state[f"{name}.pwconv2.weight"], state[f"{name}.pwconv2.bias"])
    return norm("norm", x)
