"""Key tables of SwAV, DeepCluster-v2, SimSiam and PCL, whose ResNets bear torchvision's names.

SwAV and DeepCluster-v2: github.com/facebookresearch/swav, src/resnet50.py; SimSiam: facebookresearch/simsiam,
simsiam/builder.py; PCL: salesforce/PCL, pcl/builder.py. BYOL's files are pickled trees of JAX arrays and are not read.
"""

from collections.abc import Mapping

from torch import Tensor

from polygrain.weights.tables import RESNET_BACKBONE, Anew, Rule, Table, scalar, transposed

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

# A checkpoint of DeepCluster-v2 into a method with the objective of `methods/deepclusterv2.py`. The authors keep the
# embeddings of all images in files of their own, one for each of their devices.
DEEPCLUSTER_FULL: Table = (
    *_backbone(r"(?:state_dict/)?module\."),
    Rule(r"(?:state_dict/)?module\.projection_head\.(.*)", r"objectives.group.projector.\1"),
    Rule(r"(?:state_dict/)?module\.prototypes\.prototypes(\d+)\.weight", r"objectives.group.centroids[\1]"),
    Anew(r"objectives\.group\.bank\.rows", "filled by a pass over all images before the first epoch"),
    Anew(r"objectives\.group\.(?:clusters|largest_cluster)", "found before the first epoch"),
    *AROUND,
)


def _pcl_side(network: str, side: str) -> tuple[Rule, ...]:
    home = rf"state_dict/module\.{network}\."
    return (
        *(Rule(rf"{home}{r.pattern}", f"encoder.{side}.model.{r.target}") for r in RESNET_BACKBONE),
        Rule(rf"{home}fc\.([02]\..*)", rf"objectives.group.projector.{side}.\1"),
    )


# A checkpoint of PCL v2 into a method with the objective of `methods/pcl.py`. Its files are named as those of MoCo v2.
PCL_FULL: Table = (
    *_pcl_side("encoder_q", "student"),
    *_pcl_side("encoder_k", "teacher"),
    Rule(r"state_dict/module\.queue", "objectives.group.queue.rows", convert=transposed),
    Rule(r"state_dict/module\.queue_ptr", "objectives.group.queue.pointer", convert=scalar),
    Anew(
        r"objectives\.group\.(?:clusters|centroids|concentrations|largest_cluster)",
        "found before the first epoch that needs clusters",
    ),
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


def clustering_table(tensors: Mapping[str, Tensor]) -> Table | None:
    """The key table of a full checkpoint of SwAV, DeepCluster-v2 or SimSiam; None for other files."""
    names = {key.removeprefix("state_dict/") for key in tensors}
    if "module.prototypes.weight" in names:
        return SWAV_FULL
    if "module.prototypes.prototypes0.weight" in names:
        return DEEPCLUSTER_FULL
    return SIMSIAM_FULL if "state_dict/module.encoder.fc.6.weight" in tensors else None
