"""Key tables: how the authors' checkpoints name their tensors, and what we call them.

A rule's pattern must match a whole name; its target is filled like `re.sub` fills a replacement, and rules are tried
in order. Names of nested maps in a file are joined by "/" (see `reading`). A target that ends in `[0]` is one of the
parts of a tensor along its first axis.
"""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor


class Rule(NamedTuple):
    """Where the tensors of one pattern go: to `target`, or nowhere for the reason in `left`."""

    pattern: str
    target: str = ""
    left: str = ""
    convert: Callable[[Tensor], Tensor] | None = None


class Anew(NamedTuple):
    """Places of one pattern that no such file fills, since the run finds them itself before it needs them."""

    place: str
    why: str


Table = tuple[Rule | Anew, ...]


def transposed(tensor: Tensor) -> Tensor:
    return tensor.t()


def scalar(tensor: Tensor) -> Tensor:
    return tensor.reshape(())


def flat(tensor: Tensor) -> Tensor:
    return tensor.flatten()


WEIGHTS = r"(?:weight|bias)"
BLOCK = rf"(?:norm[12]|attn\.qkv|attn\.proj|mlp\.fc[12])\.{WEIGHTS}"
VIT = rf"(cls_token|pos_embed|patch_embed\.proj\.{WEIGHTS}|blocks\.\d+\.{BLOCK}|norm\.{WEIGHTS})"

# Mugs, github.com/sail-sg/mugs, src/vision_transformer.py: timm's names, and the aggregator among them.
VIT_BACKBONE = (
    Rule(VIT, r"\1"),
    Rule(r"relation_blocks\..*", left="the aggregator, part of the local-group objective"),
)

# VICReg and VICRegL, resnet.py: torchvision's names, which are timm's.
BATCH_NORM = r"(?:weight|bias|running_mean|running_var|num_batches_tracked)"
RESNET_BACKBONE = (
    Rule(r"(conv1\.weight)", r"\1"),
    Rule(rf"(bn1\.{BATCH_NORM})", r"\1"),
    Rule(r"(layer[1-4]\.\d+\.(?:conv[123]|downsample\.0)\.weight)", r"\1"),
    Rule(rf"(layer[1-4]\.\d+\.(?:bn[123]|downsample\.1)\.{BATCH_NORM})", r"\1"),
)

# VICRegL, github.com/facebookresearch/VICRegL, convnext.py. The final norm comes before the mean, so it is timm's
# `norm_pre` and not its `head.norm`. Only hub files of before January 2023 have gamma.
CONVNEXT_BACKBONE = (
    Rule(rf"downsample_layers\.0\.([01]\.{WEIGHTS})", r"stem.\1"),
    Rule(rf"downsample_layers\.([123])\.([01]\.{WEIGHTS})", r"stages.\1.downsample.\2"),
    Rule(rf"stages\.(\d)\.(\d+)\.dwconv\.({WEIGHTS})", r"stages.\1.blocks.\2.conv_dw.\3"),
    Rule(rf"stages\.(\d)\.(\d+)\.norm\.({WEIGHTS})", r"stages.\1.blocks.\2.norm.\3"),
    Rule(rf"stages\.(\d)\.(\d+)\.pwconv([12])\.({WEIGHTS})", r"stages.\1.blocks.\2.mlp.fc\3.\4"),
    Rule(r"stages\.(\d)\.(\d+)\.gamma", r"stages.\1.blocks.\2.gamma"),
    Rule(rf"norm\.({WEIGHTS})", r"norm_pre.\1"),
)

# What else full checkpoints hold, beside a backbone.
NOT_BACKBONE = (
    Rule(r"(?:.*/)?(?:module\.)?(?:instance|local_group|group)_head\..*", left="a head, not of the backbone"),
    Rule(r"(?:.*/)?(?:module\.)?(?:projector|maps_projector)\..*", left="a head, not of the backbone"),
    Rule(r"(?:.*/)?(?:module\.)?classifier\..*", left="the online probe, which is trained anew"),
    Rule(r"(?:student|teacher)_mem/.*", left="a memory of the local-group objective"),
    Rule(r"(?:instance|local-group|group)-sup\./.*", left="state of a loss"),
    Rule(r"optimizer/.*", left="state of the optimizer, which starts anew"),
    Rule(r"fp16_scaler/.*", left="state of the loss scaler, which starts anew"),
)


def _mugs_side(side: str) -> tuple[Rule, ...]:
    """Tensors of the student or of the teacher in a full Mugs checkpoint; the student's may begin with `module.`"""
    home = rf"{side}/(?:module\.)?"
    return (
        Rule(rf"{home}backbone\.{VIT}", rf"encoder.{side}.model.\1"),
        Rule(
            rf"{home}backbone\.relation_blocks\.(\d+\.{BLOCK})",
            rf"objectives.local_group.aggregator.{side}.blocks.\1",
        ),
        Rule(rf"{home}(instance|local_group)_head\.projector\.(.*)", rf"objectives.\1.contrast.projector.{side}.\2"),
        Rule(rf"{home}group_head\.projector\.(.*)", rf"objectives.group.projector.{side}.\1"),
        Rule(rf"{home}group_head\.last_layer\.(weight_[gv])", rf"objectives.group.prototypes.{side}.\1"),
        Rule(
            rf"{home}group_head\.last_layer\.parametrizations\.weight\.original0",
            rf"objectives.group.prototypes.{side}.weight_g",
        ),
        Rule(
            rf"{home}group_head\.last_layer\.parametrizations\.weight\.original1",
            rf"objectives.group.prototypes.{side}.weight_v",
        ),
        Rule(rf"{side}_mem/(?:module\.)?block\.queue_q", rf"objectives.local_group.{side}_memory.rows"),
        Rule(rf"{side}_mem/(?:module\.)?block\.queue_k", rf"objectives.local_group.{side}_memory.values"),
        Rule(rf"{side}_mem/(?:module\.)?block\.queue_v", left="never read by the authors' code"),
        Rule(
            rf"{side}_mem/(?:module\.)?block\.queue_ptr",
            rf"objectives.local_group.{side}_memory.pointer",
            convert=scalar,
        ),
    )


# A full checkpoint of Mugs, main_mugs.py, into a method with the objectives of `methods/mugs.py`.
MUGS_FULL = (
    *_mugs_side("student"),
    *_mugs_side("teacher"),
    Rule(r"student/(?:module\.)?(instance|local_group)_head\.predictor\.(.*)", r"objectives.\1.contrast.predictor.\2"),
    Rule(r"instance-sup\./queue", "objectives.instance.contrast.queue.rows", convert=transposed),
    Rule(r"instance-sup\./queue_ptr", "objectives.instance.contrast.queue.pointer", convert=scalar),
    Rule(r"local-group-sup\./queue", "objectives.local_group.contrast.queue.rows", convert=transposed),
    Rule(r"local-group-sup\./queue_ptr", "objectives.local_group.contrast.queue.pointer", convert=scalar),
    Rule(r"group-sup\./center", "objectives.group.centre", convert=flat),
    Rule(r"optimizer/.*", left="state of the optimizer, which starts anew"),
    Rule(r"fp16_scaler/.*", left="state of the loss scaler, which starts anew"),
)

# A full checkpoint of VICReg or VICRegL into a method with the objectives of `methods/vicregl.py`.
VICREG_FULL = (
    *(
        Rule(rf"(?:model/)?module\.backbone\.{rule.pattern}", f"encoder.model.{rule.target}")
        for rule in (*RESNET_BACKBONE, *CONVNEXT_BACKBONE)
    ),
    Rule(r"(?:model/)?module\.projector\.(.*)", r"objectives.global.expander.\1"),
    Rule(r"(?:model/)?module\.maps_projector\.(.*)", r"objectives.local.projector.\1"),
    Rule(r"(?:model/)?module\.classifier\..*", left="the online probe, which is trained anew"),
    Rule(r"optimizer/.*", left="state of the optimizer, which starts anew"),
)
