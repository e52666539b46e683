"""Whether an encoder computes what the authors' network does with the tensors of their file.

Shapes cannot tell the number of heads, the order of query, key and value, the order of position codes, a layer scale
that is off, or the epsilon of a norm. So each part of the encoder is run beside a plain forward pass written here from
the papers, over the file's own tensors, on a few random vectors, once at their usual size and once a thousand times
smaller (where epsilons weigh). Each part gets the same input on both sides, so the first that differs is named.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from polygrain.parts.encoder import Encoder, Family
from polygrain.weights.official import HEADS

State = Mapping[str, Tensor]
TOLERANCE = 1e-4  # of the largest absolute value of a part's output; single precision leaves about 1e-6
TOKENS = 6
SIDE = 8  # of the maps that convolutional stages are given
LAYER_NORM, BATCH_NORM = 1e-6, 1e-5  # epsilons of the authors


class Part(NamedTuple):
    """One part of a network, here and as the authors have it."""

    name: str  # of its tensors in the file
    here: tuple[str, ...]  # of its tensors in the encoder, as prefixes
    ours: Callable[[Tensor], Tensor]
    theirs: Callable[[Tensor], Tensor]
    shape: tuple[int, ...]  # of its input, without the batch axis


@torch.no_grad()
def check_activations(
    encoder: Encoder, state: State, source: str, missing: tuple[str, ...] = (), heads: Mapping[int, int] = HEADS
) -> str:
    """Compares part by part, and says in words what was compared.

    Args:
        state: the backbone's tensors by the authors' names, the first convolution adapted to the encoder's channels.
        missing: the encoder's tensors that the file lacks, and may lack; their parts are left out.
        heads: numbers of heads by the width of a ViT.

    Raises:
        ValueError: names the first part that differs.
    """
    was_training = encoder.training
    encoder.eval()
    state = {key: value.float() for key, value in state.items()}
    compared, largest = 0, 0.0
    try:
        for part in PARTS[encoder.family](encoder.model, state, heads):
            if any(name.startswith(part.here) for name in missing):
                continue
            noise = torch.randn(1, *part.shape, generator=torch.Generator().manual_seed(0))
            for size in (1.0, 1e-3):
                ours, theirs = part.ours(noise * size), part.theirs(noise * size)
                difference = _difference(ours, theirs)
                if not difference <= TOLERANCE:
                    raise ValueError(
                        f"{source} gives other activations here than in its authors' network, first in {part.name} "
                        f"(by {difference:.1e} of the largest): heads, layer scale, order of a tensor or epsilon differ"
                    )
                largest = max(largest, difference)
            compared += 1
    finally:
        encoder.train(was_training)
    return f"activations equal those of the authors' network in {compared} parts, to {largest:.0e} of the largest"


def _difference(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference as a share of the largest value; infinite where shapes differ or a number is none."""
    if ours.shape != theirs.shape:
        return math.inf
    share = (ours - theirs).abs().max() / theirs.abs().max().clamp_min(1e-30)
    return float(share.nan_to_num(math.inf))


def _own(state: State, prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _layer_norm(state: State, name: str, x: Tensor) -> Tensor:  # over the last axis
    return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], LAYER_NORM)


def _linear(state: State, name: str, x: Tensor) -> Tensor:
    return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])


def _norm_alone(name: str, here: tuple[str, ...], norm: Any, state: State, shape: tuple[int, ...]) -> Part:
    """A norm within a part: what comes to it there is never small, so that its epsilon would not show."""
    return Part(name, here, norm, lambda x: _layer_norm(state, name, x), shape)


# --- ViT: Mugs, src/vision_transformer.py, which is DINO's.


def _vit_parts(model: Any, state: State, heads_by_width: Mapping[int, int]) -> Iterator[Part]:
    width = model.embed_dim
    heads = heads_by_width.get(width, model.blocks[0].attn.num_heads)

    def embed(pixels: Tensor) -> Tensor:
        kernel = state["patch_embed.proj.weight"]
        patches = F.conv2d(pixels, kernel, state["patch_embed.proj.bias"], stride=kernel.shape[-1])
        tokens = patches.flatten(2).transpose(1, 2)  # row by row
        return torch.cat([state["cls_token"].expand(len(tokens), -1, -1), tokens], 1) + state["pos_embed"]

    def our_embed(pixels: Tensor) -> Tensor:
        embedded: Tensor = model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(pixels))))
        return embedded

    here = ("pos_embed", "cls_token", "reg_token", "patch_embed.", "norm_pre.")
    yield Part("pos_embed", here, our_embed, embed, (model.patch_embed.proj.in_channels, *model.patch_embed.img_size))
    for i, block in enumerate(model.blocks):
        own = _own(state, f"blocks.{i}.")

        def theirs(x: Tensor, own: State = own) -> Tensor:
            x = x + _scaled(own, "ls1", _attention(own, _layer_norm(own, "norm1", x), heads))
            hidden = F.gelu(_linear(own, "mlp.fc1", _layer_norm(own, "norm2", x)))
            return x + _scaled(own, "ls2", _linear(own, "mlp.fc2", hidden))

        yield Part(f"blocks.{i}", (f"blocks.{i}.",), block, theirs, (TOKENS, width))
        yield _norm_alone(f"blocks.{i}.norm2", (f"blocks.{i}.",), block.norm2, state, (TOKENS, width))

    def our_output(x: Tensor) -> Tensor:
        pooled: Tensor = model.forward_head(model.norm(x), pre_logits=True)
        return pooled

    yield Part(
        "norm", ("norm.", "fc_norm."), our_output, lambda x: _layer_norm(state, "norm", x)[:, 0], (TOKENS, width)
    )


def _attention(own: State, x: Tensor, heads: int) -> Tensor:
    """Rows of qkv: queries, then keys, then values; within each, head by head."""
    count, tokens, width = x.shape
    mixed = F.linear(x, own["attn.qkv.weight"], own.get("attn.qkv.bias"))
    query, key, value = mixed.reshape(count, tokens, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
    weights = torch.softmax(query @ key.transpose(-1, -2) / math.sqrt(width // heads), dim=-1)
    return _linear(own, "attn.proj", (weights @ value).transpose(1, 2).reshape(count, tokens, width))


def _scaled(own: State, name: str, x: Tensor) -> Tensor:
    gamma = own.get(f"{name}.gamma")
    return x if gamma is None else x * gamma


# --- ResNet: VICReg, resnet.py; torchvision's, with the stride in the 3x3 convolution.


def _resnet_parts(model: Any, state: State, _: Mapping[int, int]) -> Iterator[Part]:
    if state["conv1.weight"].shape[-1] == 7:  # the authors released no other

        def stem(x: Tensor) -> Tensor:
            x = F.relu(_batch_norm(state, "bn1", F.conv2d(x, state["conv1.weight"], stride=2, padding=3)))
            return F.max_pool2d(x, 3, stride=2, padding=1)

        def our_stem(x: Tensor) -> Tensor:
            shrunk: Tensor = model.maxpool(model.act1(model.bn1(model.conv1(x))))
            return shrunk

        yield Part("conv1", ("conv1.", "bn1."), our_stem, stem, (model.conv1.in_channels, 4 * SIDE, 4 * SIDE))
    for level in (1, 2, 3, 4):
        for i, block in enumerate(getattr(model, f"layer{level}")):
            name, stride = f"layer{level}.{i}", 2 if level > 1 and i == 0 else 1
            own = _own(state, f"{name}.")

            def theirs(x: Tensor, own: State = own, stride: int = stride) -> Tensor:
                return _residual(own, x, stride)

            yield Part(name, (f"{name}.",), block, theirs, (block.conv1.in_channels, SIDE, SIDE))


def _residual(own: State, x: Tensor, stride: int) -> Tensor:
    y, last = x, 3 if "conv3.weight" in own else 2
    for i in range(1, last + 1):
        kernel = own[f"conv{i}.weight"]
        strided = i == last - 1  # the 3x3 of a bottleneck, the first of a basic block
        y = F.conv2d(y, kernel, stride=stride if strided else 1, padding=kernel.shape[-1] // 2)
        y = _batch_norm(own, f"bn{i}", y)
        y = F.relu(y) if i < last else y
    if "downsample.0.weight" in own:
        x = _batch_norm(own, "downsample.1", F.conv2d(x, own["downsample.0.weight"], stride=stride))
    return F.relu(x + y)


def _batch_norm(state: State, name: str, x: Tensor) -> Tensor:
    mean, variance, gain, bias = (state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, mean, variance, gain, bias, eps=BATCH_NORM)


# --- ConvNeXt: VICRegL, convnext.py; the last norm comes before the mean.


def _convnext_parts(model: Any, state: State, _: Mapping[int, int]) -> Iterator[Part]:
    def stem(x: Tensor) -> Tensor:
        return _over_channels(state, "downsample_layers.0.1", _conv(state, "downsample_layers.0.0", x, stride=4))

    yield Part("downsample_layers.0", ("stem.",), model.stem, stem, (model.stem[0].in_channels, 4 * SIDE, 4 * SIDE))
    channels = model.stem[0].out_channels
    for level, stage in enumerate(model.stages):
        name = f"downsample_layers.{level}"
        if level:

            def shrink(x: Tensor, name: str = name) -> Tensor:
                return _conv(state, f"{name}.1", _over_channels(state, f"{name}.0", x), stride=2)

            yield Part(name, (f"stages.{level}.downsample.",), stage.downsample, shrink, (channels, SIDE, SIDE))
        channels = stage.blocks[0].conv_dw.in_channels
        for i, block in enumerate(stage.blocks):
            own = _own(state, f"stages.{level}.{i}.")

            def theirs(x: Tensor, own: State = own) -> Tensor:
                y = _conv(own, "dwconv", x, padding=3, groups=x.shape[1]).permute(0, 2, 3, 1)
                y = _linear(own, "pwconv2", F.gelu(_linear(own, "pwconv1", _layer_norm(own, "norm", y))))
                return x + (y * own["gamma"] if "gamma" in own else y).permute(0, 3, 1, 2)

            here = (f"stages.{level}.blocks.{i}.",)
            yield Part(f"stages.{level}.{i}", here, block, theirs, (channels, SIDE, SIDE))
            yield _norm_alone(f"stages.{level}.{i}.norm", here, block.norm, state, (SIDE, SIDE, channels))

    def our_output(x: Tensor) -> Tensor:
        pooled: Tensor = model.forward_head(model.norm_pre(x), pre_logits=True)
        return pooled

    def output(x: Tensor) -> Tensor:
        return _over_channels(state, "norm", x).mean((2, 3))

    yield Part("norm", ("norm_pre.", "head."), our_output, output, (channels, SIDE, SIDE))


def _over_channels(state: State, name: str, x: Tensor) -> Tensor:
    return _layer_norm(state, name, x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _conv(state: State, name: str, x: Tensor, **how: int) -> Tensor:
    return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], **how)


PARTS: dict[Family, Callable[[Any, State, Mapping[int, int]], Iterator[Part]]] = {
    "vit": _vit_parts,
    "resnet": _resnet_parts,
    "convnext": _convnext_parts,
}
