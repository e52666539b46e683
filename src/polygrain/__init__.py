"""Self-supervised pretraining of vision backbones at every granularity.

The names below are imported when first used, so that the command line answers `--help` at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from polygrain.api import compare, export, measure, pretrain
    from polygrain.weights.backbone import load_encoder

_PLACES = {
    "pretrain": "polygrain.api",
    "measure": "polygrain.api",
    "compare": "polygrain.api",
    "export": "polygrain.api",
    "load_encoder": "polygrain.weights.backbone",
}
__all__ = ["compare", "export", "load_encoder", "measure", "pretrain"]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'polygrain' has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)
