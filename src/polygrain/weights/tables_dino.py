"""Key tables of DINO, iBOT and MAE.

DINO: github.com/facebookresearch/dino, main_dino.py; iBOT: github.com/bytedance/ibot, main_ibot.py; MAE:
github.com/facebookresearch/mae, models_mae.py. Their backbones have the names of timm.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from polygrain.weights.tables import BLOCK, RESNET_BACKBONE, VIT, WEIGHTS, Rule, Table, flat


def _side(side: str) -> tuple[Rule, ...]:
    """Tensors of the student or of the teacher in a full checkpoint; some begin with `module.`"""
    home = rf"{side}/(?:module\.)?"
    ours = "objectives.group"
    return (
        Rule(rf"{home}backbone\.{VIT}", rf"encoder.{side}.model.\1"),
        *(Rule(rf"{home}backbone\.{rule.pattern}", f"encoder.{side}.model.{rule.target}") for rule in RESNET_BACKBONE),
        Rule(rf"{home}head\.mlp\.(.*)", rf"{ours}.projector.{side}.\1"),
        Rule(rf"{home}head\.last_layer\.(weight_[gv])", rf"{ours}.prototypes.{side}.\1"),
        Rule(rf"{home}head\.last_layer\.parametrizations\.weight\.original0", rf"{ours}.prototypes.{side}.weight_g"),
        Rule(rf"{home}head\.last_layer\.parametrizations\.weight\.original1", rf"{ours}.prototypes.{side}.weight_v"),
        Rule(rf"{home}head\.last_layer2\..*", left="the same as last_layer, which class token and patches share"),
    )


# Full checkpoints of DINO and iBOT into methods with the objectives of `methods/dino.py` and `methods/ibot.py`.
DINO_FULL = (
    *_side("student"),
    *_side("teacher"),
    Rule(r"student/(?:module\.)?backbone\.masked_embed", "encoder.student.mask_token"),
    Rule(r"(?:dino|ibot)_loss/center", "objectives.group.centre", convert=flat),
    Rule(r"ibot_loss/center2", "objectives.patches.centre", convert=flat),
    Rule(r"optimizer/.*", left="state of the optimizer, which starts anew"),
    Rule(r"fp16_scaler/.*", left="state of the loss scaler, which starts anew"),
)

# A full checkpoint of MAE into a method with the objective of `methods/mae.py`.
MAE_FULL = (
    Rule(rf"(?:model/)?{VIT}", r"encoder.model.\1"),
    Rule(r"(?:model/)?mask_token", "objectives.pixels.decoder.mask_token"),
    Rule(r"(?:model/)?decoder_pos_embed", "objectives.pixels.decoder.positions"),
    Rule(rf"(?:model/)?decoder_(embed|norm)\.({WEIGHTS})", r"objectives.pixels.decoder.\1.\2"),
    Rule(rf"(?:model/)?decoder_pred\.({WEIGHTS})", r"objectives.pixels.decoder.predict.\1"),
    Rule(rf"(?:model/)?decoder_blocks\.(\d+\.{BLOCK})", r"objectives.pixels.decoder.blocks.\1"),
    Rule(r"optimizer/.*", left="state of the optimizer, which starts anew"),
    Rule(r"scaler/.*", left="state of the loss scaler, which starts anew"),
)

# What else the files of these methods hold, beside a backbone.
NOT_BACKBONE_DINO = (
    Rule(r"(?:.*/)?(?:module\.)?head\.(?:mlp|last_layer2?)\..*", left="a head, not of the backbone"),
    Rule(r"(?:.*/)?(?:module\.)?(?:backbone\.)?(?:masked_embed|mask_token)", left="what stands for hidden patches"),
    Rule(r"(?:.*/)?decoder_.*", left="the decoder, not of the backbone"),
    Rule(r"(?:dino|ibot)_loss/.*", left="state of a loss"),
    Rule(r"scaler/.*", left="state of the loss scaler, which starts anew"),
)


def dino_table(tensors: Mapping[str, Tensor]) -> Table | None:
    """The key table of a full checkpoint of DINO, iBOT or MAE; None for another.

    Raises:
        ValueError: for an iBOT whose patches have prototypes of their own, which ours have not.
    """
    if any(key.endswith("decoder_embed.weight") for key in tensors):
        return MAE_FULL
    if not any(key.startswith(("dino_loss/", "ibot_loss/")) for key in tensors):
        return None
    for key, tensor in tensors.items():
        if ".last_layer2." in key and not torch.equal(tensor, tensors[key.replace("last_layer2", "last_layer")]):
            raise ValueError(
                f"{key} is not last_layer: this iBOT was trained with shared_head false, ours share theirs"
            )
    return DINO_FULL
