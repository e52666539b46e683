"""Methods by name."""

from polygrain.methods.base import Settings
from polygrain.methods.mugs import Mugs
from polygrain.methods.vicreg import VICReg
from polygrain.methods.vicregl import VICRegL

METHODS: dict[str, type[Settings]] = {
    "mugs": Mugs,
    "vicreg": VICReg,
    "vicregl": VICRegL,
}
