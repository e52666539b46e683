"""Key tables of SwAV, DeepCluster-v2, SimSiam and PCL, whose ResNets bear torchvision's names.

SwAV and DeepCluster-v2: github.com/facebookresearch/swav, src/resnet50.py; SimSiam: facebookresearch/simsiam,
simsiam/builder.py; PCL: salesforce/PCL, pcl/builder.py. BYOL's files are pickled trees of JAX arrays and are not read.
"""

from collections.abc import Mapping

from torch import Tensor

from polygrain.weights.tables import RESNET_BACKBONE, Rule

AROUND = (
    Rule(r"optimizer/.*", left="state of the optimizer, which starts anew"),
    Rule(r"(?:amp|scaler)/.*", left="state of the loss scaler, which starts anew"),
)


def _backbone(home: str) -> tuple[Rule, ...]:
    return tuple(Rule(rf"{home}{rule.pattern}", f"encoder.model.{rule.target}") for rule in RESNET_BACKBONE)


# A checkpoint of SwAV into a method with the objective of `methods/swav.py` and without queues.
SWAV_FULL = (
    *_backbone(r"(?:state_dict/)?module\."),
    Rule(r"(?:state_dict/)?module\.projection_head\.(.*)", r"objectives.group.projector.\1"),
    Rule(r"(?:state_dict/)?module\.prototypes\.weight", "objectives.group.prototypes.weight"),
    *AROUND,
)

# A checkpoint of SimSiam into a method with the objective of `methods/simsiam.py`.
SIMSIAM_FULL = (
    *_backbone(r"state_dict/module\.encoder\."),
    Rule(r"state_dict/module\.encoder\.fc\.(.*)", r"objectives.instance.projector.\1"),
    Rule(r"state_dict/module\.predictor\.(.*)", r"objectives.instance.predictor.\1"),
    *AROUND,
)

# What else the files of these methods hold, beside a backbone.
NOT_BACKBONE_CLUSTERING = (
    Rule(r"projection_head\..*", left="a head, not of the backbone"),
    Rule(r"prototypes\.(?:prototypes\d+\.)?weight", left="prototypes, not of the backbone"),
    Rule(r"fc\.\d\..*", left="a head, not of the backbone"),
    Rule(r"state_dict/module\.predictor\..*", left="a head, not of the backbone"),
    Rule(r"state_dict/module\.encoder_k\..*", left="the teacher; the student was taken, as the authors evaluate it"),
    Rule(r"state_dict/module\.queue(?:_ptr)?", left="a queue of negatives"),
    *AROUND,
)


def clustering_table(tensors: Mapping[str, Tensor]) -> tuple[Rule, ...] | None:
    """The key table of a full checkpoint of SwAV or SimSiam; None for other files."""
    if any(key.removeprefix("state_dict/") == "module.prototypes.weight" for key in tensors):
        return SWAV_FULL
    return SIMSIAM_FULL if "state_dict/module.encoder.fc.6.weight" in tensors else None
