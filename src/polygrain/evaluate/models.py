"""Whatever a person hands in as a model, opened for evaluation."""

import difflib
import hashlib
import os
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from polygrain.data.photometric import IMAGENET, Normalisation
from polygrain.evaluate.pixels import RawPixels
from polygrain.parts.encoder import Encoder
from polygrain.weights.backbone import FILE, open_backbone

PIXELS = "pixels"


class Model(NamedTuple):
    """An encoder, how images are prepared for it, and how to know it again."""

    encoder: Encoder | RawPixels
    name: str
    normalisation: Normalisation
    image_size: int  # of the images it was trained on, in pixels
    checkpoint_sha256: str | None  # of the file, where there is one
    weights_sha256: str  # of all tensors, with their names


def open_model(model: str | os.PathLike[str] | Encoder | RawPixels) -> Model:
    """Opens a model.

    Args:
        model: what `open_backbone` takes (a run folder, a backbone file, "timm:NAME" for pretrained weights,
            "random:NAME" for none), "pixels" (the baseline without a network), or an encoder, which is taken to
            want ImageNet's normalisation.

    Raises:
        ValueError: when there is nothing of that name.
    """
    if isinstance(model, Encoder | RawPixels):
        return Model(model, type(model).__name__, IMAGENET, model.image_size, None, weights_sha256(model))
    name = os.fspath(model)
    if name == PIXELS:
        return open_model(RawPixels())._replace(name="raw pixels")
    if not Path(name).exists() and difflib.get_close_matches(name, [PIXELS]):
        raise ValueError(f"no model {name!r}; did you mean {PIXELS!r}?")
    backbone = open_backbone(name)
    file = Path(name) / FILE if Path(name).is_dir() else Path(name)
    digest = hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None
    encoder = backbone.encoder
    return Model(encoder, name, backbone.normalisation, backbone.crop_size, digest, weights_sha256(encoder))


def weights_sha256(module: nn.Module) -> str:
    """One digest of all parameters and buffers, by name, whatever device they are on."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def pick_device(wanted: str) -> str:
    """ "auto" becomes a GPU where there is one.

    Raises:
        ValueError: when this machine has no such device.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    found = [name for name, is_there in there.items() if is_there]
    if wanted == "auto":
        return found[0]
    if wanted not in found:
        raise ValueError(f"device is {wanted!r}, which torch does not find here; there is {', '.join(found)}")
    return wanted
