"""Key tables of MoCo v2, MoCo-v3, InfoMin and Barlow Twins.

MoCo v2: github.com/facebookresearch/moco, moco/builder.py; MoCo-v3: facebookresearch/moco-v3, moco/builder.py and
vits.py; InfoMin: HobbitLong/PyContrast, pycontrast/; Barlow Twins: facebookresearch/barlowtwins, main.py. Their
ResNets bear torchvision's names, their ViTs timm's. SimCLR's files are TensorFlow's and are not read.
"""

from collections.abc import Mapping

from torch import Tensor

from polygrain.weights.tables import RESNET_BACKBONE, VIT, Anew, Rule, Table, scalar, transposed

HEAD = r"((?:\d+)\..*)"
AROUND = (
    Rule(r"optimizer/.*", left="state of the optimizer, which starts anew"),
    Rule(r"scaler/.*", left="state of the loss scaler, which starts anew"),
)


def _side(network: str, side: str) -> tuple[Rule, ...]:
    """Tensors of one of two networks, whose projector is where a classifier would be."""
    home = rf"state_dict/module\.{network}\."
    return (
        Rule(rf"{home}{VIT}", rf"encoder.{side}.model.\1"),
        *(Rule(rf"{home}{rule.pattern}", f"encoder.{side}.model.{rule.target}") for rule in RESNET_BACKBONE),
        Rule(rf"{home}(?:fc|head)\.{HEAD}", rf"objectives.instance.projector.{side}.\1"),
    )


# A full checkpoint into a method with the objective of `methods/mocov2.py`.
MOCOV2_FULL = (
    *_side("encoder_q", "student"),
    *_side("encoder_k", "teacher"),
    Rule(r"state_dict/module\.queue", "objectives.instance.queue.rows", convert=transposed),
    Rule(r"state_dict/module\.queue_ptr", "objectives.instance.queue.pointer", convert=scalar),
    *AROUND,
)

# A full checkpoint into a method with the objective of `methods/mocov3.py`.
MOCOV3_FULL = (
    *_side("base_encoder", "student"),
    *_side("momentum_encoder", "teacher"),
    Rule(rf"state_dict/module\.predictor\.{HEAD}", r"objectives.instance.predictor.\1"),
    *AROUND,
)

# A full checkpoint into a method with the objectives of `methods/infomin.py`.
INFOMIN_FULL: Table = (
    *(Rule(rf"model/module\.encoder\.{r.pattern}", f"encoder.student.model.{r.target}") for r in RESNET_BACKBONE),
    *(Rule(rf"model_ema/encoder\.{r.pattern}", f"encoder.teacher.model.{r.target}") for r in RESNET_BACKBONE),
    Rule(rf"model/module\.head\.{HEAD}", r"objectives.instance.projector.student.\1"),
    Rule(rf"model_ema/head\.{HEAD}", r"objectives.instance.projector.teacher.\1"),
    Rule(r"model/module\.head_jig\.(.*)", r"objectives.jigsaw.\1"),
    Rule(r"model_ema/head_jig\..*", left="the teacher's head of puzzles, which is never used"),
    Rule(r"contrast/memory", "objectives.instance.queue.rows"),
    Anew(r"objectives\.instance\.queue\.pointer", "the next keys go to the first rows, as when the authors resume"),
    Rule(r"amp/.*", left="state of the loss scaler, which starts anew"),
    *AROUND,
)

# A full checkpoint into a method with the objective of `methods/barlow_twins.py`.
BARLOW_FULL = (
    *(Rule(rf"model/module\.backbone\.{rule.pattern}", f"encoder.model.{rule.target}") for rule in RESNET_BACKBONE),
    Rule(rf"model/module\.projector\.{HEAD}", r"objectives.global.projector.\1"),
    Rule(r"model/module\.bn\.(.*)", r"objectives.global.norm.\1"),
    *AROUND,
)

# What else the files of these methods hold, beside a backbone.
NOT_BACKBONE_CONTRASTIVE = (
    Rule(r"(?:fc|head)\.\d+\..*", left="a head, not of the backbone"),
    Rule(r"state_dict/module\.(?:encoder_[qk]|(?:base|momentum)_encoder)\..*", left="the other of the two networks"),
    Rule(r"state_dict/module\.predictor\..*", left="a head, not of the backbone"),
    Rule(r"state_dict/module\.queue(?:_ptr)?", left="a queue of negatives"),
    Rule(r"model/module\.bn\..*", left="the norm of the embeddings"),
    Rule(r"model/module\.encoder\..*", left="the other of the two networks"),
    Rule(r"model_ema/.*", left="the teacher; the student was taken, as the authors evaluate it"),
    Rule(r"model/module\.(?:head|head_jig)\..*", left="a head, not of the backbone"),
    Rule(r"contrast/memory", left="a queue of negatives"),
    *AROUND,
)


def contrastive_table(tensors: Mapping[str, Tensor]) -> Table | None:
    """The key table of a full checkpoint of MoCo v2, MoCo-v3, InfoMin or Barlow Twins; None for other files."""
    if {"state_dict/module.queue", "state_dict/module.encoder_q.fc.2.weight"} <= tensors.keys():
        return MOCOV2_FULL
    if {"model/module.head_jig.fc2.weight", "contrast/memory"} <= tensors.keys():
        return INFOMIN_FULL
    if any(key.startswith("state_dict/module.momentum_encoder.") for key in tensors):
        return MOCOV3_FULL
    return BARLOW_FULL if "model/module.bn.running_mean" in tensors else None
