"""Self-supervised pretraining of vision backbones at every granularity.

The names below are imported when first used, so that the command line answers `--help` at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from polygrain.api import evaluate_knn, evaluate_linear, export, pretrain
    from polygrain.weights.backbone import load_encoder

_PLACES = {
    "pretrain": "polygrain.api",
    "evaluate_knn": "polygrain.api",
    "evaluate_linear": "polygrain.api",
    "export": "polygrain.api",
    "load_encoder": "polygrain.weights.backbone",
}
__all__ = ["evaluate_knn", "evaluate_linear", "export", "load_encoder", "pretrain"]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'polygrain' has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)
