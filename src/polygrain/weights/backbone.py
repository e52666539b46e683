"""Backbones on disk: one safetensors file holds the weights and all that is needed to build the encoder again."""

import dataclasses
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from polygrain.data.photometric import IMAGENET, Normalisation
from polygrain.parts.encoder import Encoder, EncoderSettings
from polygrain.weights.importing import fill_encoder, find_backbone
from polygrain.weights.official import released_encoder
from polygrain.weights.reading import read_checkpoint

FILE = "backbone.safetensors"
KEY = "polygrain"


class Backbone(NamedTuple):
    """An encoder, and how images must be prepared for it."""

    encoder: Encoder
    normalisation: Normalisation
    crop_size: int  # side of the large crops it was trained on, in pixels
    training: Mapping[str, Any]  # method, steps ...; empty for weights from elsewhere


def save_backbone(
    path: str | Path, encoder: Encoder, *, normalisation: Normalisation, extra: Mapping[str, Any] | None = None
) -> None:
    """Writes a backbone; the names of its tensors are timm's own. The file is whole or not there at all.

    Args:
        extra: what JSON can hold about the training; "crop_size" in it overrides the encoder's own image size.
    """
    extra = dict(extra or {})
    settings = {**dataclasses.asdict(encoder.settings), "pretrained": False, "checkpointing": False}
    metadata = {
        "version": version("polygrain"),
        "encoder": settings,
        "normalisation": {"mean": list(normalisation.mean), "std": list(normalisation.std)},
        "crop_size": extra.pop("crop_size", encoder.image_size),
        "training": extra,
    }
    write_tensors(path, encoder.model.state_dict(), {KEY: json.dumps(metadata)})


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Writes a safetensors file beside its place, then moves it there."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".part")
    save_file({key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}, unfinished, dict(metadata))
    unfinished.replace(path)


def read_backbone(path: str | Path) -> Backbone:
    """A backbone that `save_backbone` wrote, in evaluation mode, on the CPU.

    Raises:
        ValueError: when the file is not such a file, or its tensors are not exactly those of its encoder.
    """
    try:
        with safe_open(path, framework="pt") as file:
            described = (file.metadata() or {}).get(KEY)
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # not a mapping
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file ({error})") from error
    if described is None:
        raise ValueError(f"{path} was not written by polygrain: it does not say which encoder it is of")
    metadata = json.loads(described)
    encoder = Encoder(EncoderSettings(**metadata["encoder"]))
    load_exactly(encoder.model, tensors, source=str(path))
    mean, std = metadata["normalisation"]["mean"], metadata["normalisation"]["std"]
    return Backbone(encoder.eval(), normalisation_of(mean, std), metadata["crop_size"], metadata["training"])


def load_exactly(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Copies tensors into a module that has exactly these.

    Raises:
        ValueError: when one is missing, not known, or has another shape.
    """
    own = module.state_dict()
    problems = [f"{key} is missing" for key in own if key not in tensors]
    problems += [f"{key} is not known" for key in tensors if key not in own]
    problems += [
        f"{key} is {tuple(tensors[key].shape)}, not {tuple(own[key].shape)}"
        for key in own
        if key in tensors and tensors[key].shape != own[key].shape
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise ValueError(f"{source} does not fit its encoder: {', '.join(problems[:3])}{more}")
    module.load_state_dict(tensors)


def open_backbone(spec: str | Path) -> Backbone:
    """A backbone by name.

    A run folder, a file of ours, an official file of Mugs, VICReg or VICRegL (whose teacher it is, if there is one),
    `timm:NAME` (pretrained) or `random:NAME` (untrained).

    Raises:
        ValueError: when there is nothing of that name.
    """
    kind, colon, name = str(spec).partition(":")
    if colon and kind in ("timm", "random"):
        return _from_timm(Encoder(EncoderSettings(name=name, pretrained=kind == "timm")).eval())
    path = Path(spec)
    if path.is_dir():
        if not (path / FILE).is_file():
            raise ValueError(f"folder {path} holds no {FILE}; give the folder of a run, a file, or timm:NAME")
        path = path / FILE
    if not path.is_file():
        raise ValueError(f"{spec!s} is neither a run folder nor a file; other encoders are timm:NAME and random:NAME")
    if path.suffix == ".pt":
        raise ValueError(f"{path} is the state of a whole run; give the run's folder, or its {FILE}")
    return _from_official(path) if path.suffix == ".pth" else read_backbone(path)


def load_encoder(spec: str | Path) -> Encoder:
    """The encoder alone of what `open_backbone` opens, in evaluation mode."""
    return open_backbone(spec).encoder


def _from_timm(encoder: Encoder) -> Backbone:
    config = encoder.model.pretrained_cfg
    trained = encoder.settings.pretrained
    return Backbone(
        encoder, normalisation_of(config["mean"], config["std"]) if trained else IMAGENET, encoder.image_size, {}
    )


def _from_official(path: Path) -> Backbone:
    tensors = read_checkpoint(path)
    home = find_backbone(tensors, "auto", "teacher", str(path))
    encoder = Encoder(released_encoder(tensors, home, str(path))).eval()
    fill_encoder(tensors, str(path), encoder)
    return Backbone(encoder, IMAGENET, encoder.image_size, {})


def normalisation_of(mean: Any, std: Any) -> Normalisation:
    return Normalisation(tuple(mean), tuple(std))
