"""Backbones on disk: one safetensors file holds the weights and all that is needed to build the encoder again."""

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from polygrain.data.photometric import IMAGENET, Normalisation
from polygrain.parts.encoder import Encoder, EncoderSettings
from polygrain.weights.description import describe, encoder_fields, matches, read_description
from polygrain.weights.finding import find_backbone
from polygrain.weights.importing import fill_encoder
from polygrain.weights.official import released_encoder
from polygrain.weights.reading import read_checkpoint
from polygrain.weights.tensors import check_finite, opened, refuse_distributed, write_tensors

FILE = "backbone.safetensors"
KEY = "polygrain"


class Backbone(NamedTuple):
    """An encoder, and how images must be prepared for it."""

    encoder: Encoder
    normalisation: Normalisation
    crop_size: int  # side of the large crops it was trained on, in pixels
    training: Mapping[str, Any]  # method, steps ...; of an official file, the prefix of the network that was taken


def save_backbone(
    path: str | Path, encoder: Encoder, *, normalisation: Normalisation, extra: Mapping[str, Any] | None = None
) -> None:
    """Writes a backbone with a digest; the names of its tensors are timm's own. The file is whole or not there at all.

    Args:
        extra: what JSON can hold about the training; "crop_size" in it overrides the encoder's own image size.
    """
    extra = dict(extra or {})
    tensors = encoder.model.state_dict()
    fields = {
        "version": version("polygrain"),
        "encoder": encoder_fields(encoder.settings),
        "normalisation": {"mean": list(normalisation.mean), "std": list(normalisation.std)},
        "crop_size": extra.pop("crop_size", encoder.image_size),
        "training": extra,
    }
    write_tensors(path, tensors, {KEY: describe(fields, tensors)})


def read_backbone(path: str | Path) -> Backbone:
    """A backbone that `save_backbone` wrote, in evaluation mode, on the CPU.

    The description and the shapes are checked before anything is allocated, the digest before any weight is used.

    Raises:
        ValueError: when the file is not such a file, was changed since, its tensors are not exactly those of its
            encoder, or one holds NaN or infinity.
    """
    with opened(path) as file:
        metadata = file.metadata() or {}
        slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118  # not a mapping
        if KEY not in metadata:
            raise ValueError(f"{path} was not written by polygrain: it does not say which encoder it is of")
        try:
            if set(metadata) != {KEY}:
                raise ValueError(f"its header holds more than {KEY!r}")
            description = read_description(metadata[KEY], len(slices))
            with torch.device("meta"):
                expected = _meta(description.encoder).model.state_dict()
        except ValueError as error:
            raise ValueError(f"{path} cannot be trusted: {error}") from error
        check_fit(expected, {key: tuple(part.get_shape()) for key, part in slices.items()}, str(path))
        tensors = {key: file.get_tensor(key) for key in slices}
    if not matches(metadata[KEY], tensors):
        raise ValueError(f"{path} was changed after it was written: its checksum differs; get it again")
    check_finite(tensors, str(path))
    encoder = Encoder(description.encoder)
    load_exactly(encoder.model, tensors, source=str(path))
    return Backbone(encoder.eval(), description.normalisation, description.crop_size, description.training)


def _meta(settings: EncoderSettings) -> Encoder:
    """An encoder without numbers, to know its shapes.

    Raises:
        ValueError: when it cannot be built.
    """
    try:
        return Encoder(settings)
    except Exception as error:  # arguments from a file can break a constructor in any way
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"its encoder {settings.name} cannot be built: {reason}") from error


def check_fit(own: Mapping[str, Tensor], given: Mapping[str, tuple[int, ...]], source: str) -> None:
    """Whether tensors of these shapes are exactly those of a network.

    Raises:
        ValueError: when one is missing, not known, or has another shape.
    """
    problems = [f"{key} is missing" for key in own if key not in given]
    problems += [f"{key} is not known" for key in given if key not in own]
    problems += [
        f"{key} is {given[key]}, not {tuple(own[key].shape)}"
        for key in own
        if key in given and given[key] != tuple(own[key].shape)
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise ValueError(f"{source} does not fit its encoder: {', '.join(problems[:3])}{more}")


def load_exactly(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Copies tensors into a module that has exactly these.

    Raises:
        ValueError: when one is missing, not known, or has another shape.
    """
    check_fit(module.state_dict(), {key: tuple(tensor.shape) for key, tensor in tensors.items()}, source)
    module.load_state_dict(tensors)


def open_backbone(spec: str | Path) -> Backbone:
    """A backbone by name.

    A run folder, a file of ours, an official file of Mugs, VICReg or VICRegL (its teacher, if there is one),
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
            refuse_distributed(path)
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
    home = find_backbone(tensors, "auto", None, str(path))
    encoder = Encoder(released_encoder(tensors, home.family, home.prefix, str(path))).eval()
    fill_encoder(tensors, str(path), encoder)
    return Backbone(encoder, IMAGENET, encoder.image_size, {"imported_from": home.prefix})


def normalisation_of(mean: Any, std: Any) -> Normalisation:
    return Normalisation(tuple(mean), tuple(std))
