"""Methods by name."""

from polygrain.methods.base import Settings
from polygrain.methods.mugs import Mugs

METHODS: dict[str, type[Settings]] = {
    "mugs": Mugs,
}
