"""What `import polygrain` offers: the verbs of the command line, as functions."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from polygrain.data.sources import open_images
from polygrain.evaluate.knn import evaluate_knn
from polygrain.evaluate.linear import evaluate_linear
from polygrain.train.settings import PretrainSettings
from polygrain.train.setup import Result
from polygrain.train.setup import pretrain as run
from polygrain.weights.exporting import export

__all__ = ["evaluate_knn", "evaluate_linear", "export", "pretrain"]


def pretrain(
    data: Any,
    out: str | Path,
    *,
    method: str = "mugs",
    options: Mapping[str, Any] | None = None,
    add: Mapping[str, Mapping[str, Any]] | None = None,
    **settings: Any,
) -> Result:
    """Trains a backbone on unlabelled images; the same choices as `polygrain pretrain`.

    `polygrain.pretrain("photos/", "runs/first", method="mugs", epochs=50, add={"local": {"weight": 0.25}})`

    Args:
        data: what `polygrain pretrain` takes, or a map-style dataset that yields PIL images or uint8 tensors
            (3, H, W), with or without a label.
        options: hyperparameters of the method by name, for example `{"queue_size": 4096}`.
        add: objectives to add by name, each with settings that differ from its defaults, for example
            `{"local": {"weight": 0.25}, "group": {}}`.
        settings: any field of `PretrainSettings`.

    Raises:
        ValueError: at a choice that cannot work, in one line.
    """
    named = isinstance(data, str | Path)
    chosen = PretrainSettings(data=str(data) if named else type(data).__name__, out=str(out), method=method, **settings)
    return run(chosen, options, add, None if named else open_images(data))
