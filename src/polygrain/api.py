"""What `import polygrain` offers: the verbs of the command line, as functions."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from polygrain.data.sources import open_images
from polygrain.evaluate.comparing import Comparison
from polygrain.evaluate.comparing import compare as run_suite
from polygrain.evaluate.protocols import PROTOCOLS
from polygrain.evaluate.result import Result as Measured
from polygrain.evaluate.settings.comparing import CompareSettings
from polygrain.train.settings import PretrainSettings
from polygrain.train.setup import Result
from polygrain.train.setup import pretrain as run
from polygrain.weights.exporting import export

__all__ = ["compare", "export", "measure", "pretrain"]


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


def measure(protocol: str, model: Any, data: Any, val: Any = None, **options: Any) -> Measured:
    """Runs a protocol on a model; the same choices as `polygrain evaluate`.

    `polygrain.measure("knn", "runs/first", "labelled/train", "labelled/val", k=(20,)).table()`

    Args:
        protocol: as `polygrain evaluate --help` lists them.
        model: a run, a backbone file, "timm:NAME", "random:NAME", "pixels", or an `Encoder`.
        data: what the protocol's `--data` takes, or a map-style dataset where it wants images; `val` likewise.
        options: other data of the protocol (`split`, `data_annotations` ...), and any field of its settings.

    Raises:
        ValueError: when something handed in cannot be used, in one line.
    """
    name = protocol.replace("-", "_")
    if name not in PROTOCOLS:
        raise ValueError(f"unknown protocol {protocol!r}; choose from {', '.join(PROTOCOLS)}")
    wanted = {option.rstrip("?") for option in PROTOCOLS[name].data}
    given = {"data": data, "val": val, **{key: options.pop(key) for key in list(options) if key in wanted}}
    if val is not None and "val" not in wanted:
        raise ValueError(f"{protocol} takes no val, only {', '.join(sorted(wanted))}")
    named = {key: value for key, value in given.items() if key in wanted}
    result: Measured = PROTOCOLS[name].function()(model, **named, settings=PROTOCOLS[name].settings(**options))
    return result


def compare(models: Sequence[Any], data: Any, val: Any = None, split: str | None = None, **settings: Any) -> Comparison:
    """Several models under the same protocols, with paired intervals; the same choices as `polygrain compare`.

    `print(polygrain.compare(["random:vit_small_64", "runs/first"], "labelled/").table())`

    Args:
        split: for segmentation, lists of names.
        settings: any field of `CompareSettings`.

    Raises:
        ValueError: for fewer than two models, or when something handed in cannot be used.
    """
    return run_suite(models, data, val, split, CompareSettings(**settings))
