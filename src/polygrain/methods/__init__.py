"""Methods by name."""

from polygrain.methods.barlow_twins import BarlowTwins
from polygrain.methods.base import Settings
from polygrain.methods.byol import BYOL
from polygrain.methods.deepclusterv2 import DeepClusterV2
from polygrain.methods.dino import DINO
from polygrain.methods.ibot import IBOT
from polygrain.methods.infomin import InfoMin
from polygrain.methods.mae import MAE
from polygrain.methods.mocov2 import MoCoV2
from polygrain.methods.mocov3 import MoCoV3
from polygrain.methods.mst import MST
from polygrain.methods.mugs import Mugs
from polygrain.methods.nnclr import NNCLR
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
    "infomin": InfoMin,
    "mae": MAE,
    "mst": MST,
    "mugs": Mugs,
    "nnclr": NNCLR,
    "pcl": PCL,
    "simclr": SimCLR,
    "simclr_l": SimCLRL,
    "simsiam": SimSiam,
    "supervised": Supervised,
    "swav": SwAV,
    "vicreg": VICReg,
    "vicregl": VICRegL,
}

# in a few words, what each was compared with; the pages in docs/methods say it in full
VERIFIED = {
    "barlow_twins": "the authors' code on one device; two processes",
    "byol": "loops over images and pairs, gradient by hand; two processes",
    "deepclusterv2": "loops over images; k-means in NumPy; two processes",
    "dino": "two steps of the authors' code",
    "ibot": "two steps of the authors' code",
    "infomin": "losses, crops and rates of the authors' code; two processes",
    "mae": "the loss patch by patch, masks by counting",
    "mocov2": "three steps of the authors' code; two processes",
    "mocov3": "anchor by anchor from the formula; two processes",
    "mst": "no code was published: limits in which it is DINO",
    "mugs": "the authors' code: losses, memories, crops, weights",
    "nnclr": "image by image from the formula over three steps; two processes",
    "pcl": "terms and gradient of the authors' code; two processes",
    "simclr": "anchor by anchor from the formula; two processes",
    "simclr_l": "loops over patches; SimCLR in its limit; two processes",
    "simsiam": "loops over images and pairs; two processes",
    "supervised": "cross-entropy by hand, timm's smoothed labels",
    "swav": "codes and loss of lightly; two processes",
    "vicreg": "the authors' code: losses, optimizer, rates",
    "vicregl": "the authors' code: losses, matches, weights",
}
