"""Methods by name."""

from polygrain.methods.barlow_twins import BarlowTwins
from polygrain.methods.base import Settings
from polygrain.methods.byol import BYOL
from polygrain.methods.deepclusterv2 import DeepClusterV2
from polygrain.methods.dino import DINO
from polygrain.methods.ibot import IBOT
from polygrain.methods.mae import MAE
from polygrain.methods.mocov2 import MoCoV2
from polygrain.methods.mocov3 import MoCoV3
from polygrain.methods.mst import MST
from polygrain.methods.mugs import Mugs
from polygrain.methods.pcl import PCL
from polygrain.methods.simclr import SimCLR
from polygrain.methods.simclr_l import SimCLRL
from polygrain.methods.simsiam import SimSiam
from polygrain.methods.supervised import Supervised
from polygrain.methods.swav import SwAV
from polygrain.methods.vicreg import VICReg
from polygrain.methods.vicregl import VICRegL

METHODS: dict[str, type[Settings]] = {
    "barlow_twins": BarlowTwins,
    "byol": BYOL,
    "deepclusterv2": DeepClusterV2,
    "mocov2": MoCoV2,
    "mocov3": MoCoV3,
    "dino": DINO,
    "ibot": IBOT,
    "mae": MAE,
    "mst": MST,
    "mugs": Mugs,
    "pcl": PCL,
    "simclr": SimCLR,
    "simclr_l": SimCLRL,
    "simsiam": SimSiam,
    "supervised": Supervised,
    "swav": SwAV,
    "vicreg": VICReg,
    "vicregl": VICRegL,
}
