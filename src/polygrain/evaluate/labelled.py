"""Features of labelled training and validation images: what every classification protocol starts from."""

import hashlib
import os
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from polygrain.data.sources import Images, open_images
from polygrain.evaluate import cache
from polygrain.evaluate.features import Views
from polygrain.evaluate.models import Model, open_model, pick_device
from polygrain.evaluate.readouts import IN_WORDS
from polygrain.evaluate.result import versions
from polygrain.evaluate.settings import FeatureSettings


class Labelled(NamedTuple):
    """Frozen features with their classes, on the device of the evaluation, and the facts of how they came about."""

    train: Tensor  # (N, D)
    train_labels: Tensor  # (N,) long
    val: Tensor  # (n, D)
    val_labels: Tensor  # (n,) long
    classes: int
    facts: dict[str, Any]
    model: dict[str, Any]
    details: dict[str, Any]
    notes: tuple[str, ...]


def labelled_features(model: Any, data: Any, val: Any, settings: FeatureSettings) -> Labelled:
    """Opens the model and both sets, and encodes every labelled image once.

    Args:
        model: what `open_model` takes; `data` and `val`: what `open_images` takes.

    Raises:
        ValueError: when a set has no labels, or `val` has a class that `data` has not.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)  # of the weights of an untrained encoder
        opened = open_model(model)
    size = settings.size or opened.image_size
    channels = opened.encoder.channels
    train_images, val_images = open_images(data, channels), open_images(val, channels)
    train_labels, val_labels = common_labels(train_images, val_images)
    device = pick_device(settings.device)
    features, labels, notes = [], [], []
    for name, images, found in (("training", train_images, train_labels), ("validation", val_images, val_labels)):
        positions = np.flatnonzero(found >= 0)
        views = Views(images, size, settings.resize, opened.normalisation, settings.aspect)
        seen, note = cache.features(opened, views, positions, settings)
        features.append(seen.pooled.to(device))
        labels.append(torch.from_numpy(found)[seen.positions].to(device))
        notes += [note] if note else []
        if len(positions) < len(images):
            notes.append(f"{len(images) - len(positions)} {name} images have no label and are left out")
        if len(seen.positions) < len(positions):
            notes.append(f"{len(positions) - len(seen.positions)} {name} images cannot be decoded and are left out")
    if constant(features[0]):
        notes.append("the features of all training images are the same: this model tells no image from another")
    classes = int(max(labels[0].max(), labels[1].max())) + 1
    counts = torch.bincount(labels[1], minlength=classes)
    facts = {
        "data": data_facts(train_images, labels[0]),
        "val": data_facts(val_images, labels[1]),
        "classes": classes,
        "chance": 1 / classes,
        "largest_class": counts.max().item() / len(labels[1]),
        "preprocessing": preprocessing(size, settings, opened),
        "features": IN_WORDS[settings.readout] + ", float32",
        "settings": settings.of_protocol(),
    }
    details = {"data": named(data), "val": named(val), "versions": versions()}
    return Labelled(
        features[0],
        labels[0],
        features[1],
        labels[1],
        classes,
        facts,
        describe(opened) | {"dimensions": features[0].shape[1]},
        details,
        tuple(notes),
    )


def constant(features: Tensor) -> bool:
    """Whether all rows (n, D) are the same, up to what float32 can tell."""
    spread = (features - features.mean(0)).abs().max()
    return bool(len(features) > 1 and spread <= 1e-6 * features.abs().max())


def data_facts(images: Images, labels: Tensor) -> dict[str, Any]:
    """What was measured on, so that another set, or the same with other labels, is known to be another."""
    digest = hashlib.blake2b(images.fingerprint().encode() + labels.cpu().numpy().tobytes(), digest_size=16)
    return {"images": len(labels), "digest": digest.hexdigest()}


def summary(seen: Labelled) -> str:
    """One line for people: which model, on what."""
    facts = seen.facts
    size = f"{facts['val']['images']:,} images of {facts['classes']} classes (chance {facts['chance']:.1%})"
    return f"{seen.model['name']} on {seen.details['val']}: {size}; features of {facts['data']['images']:,} images"


def common_labels(train: Images, val: Images) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Labels of both sets with the same number for the same class, -1 where an image has none.

    A folder numbers the classes it holds, so where both sources name their classes the names decide.
    """
    labels = []
    for name, images in (("--data", train), ("--val", val)):
        found = images.labels()
        if found is None or not (found >= 0).any():
            raise ValueError(
                f"the images of {name} have no labels; a class folder, .cls members or a dataset gives them"
            )
        labels.append(found)
    if train.classes is None or val.classes is None or train.classes == val.classes:
        return labels[0], labels[1]
    places = {name: place for place, name in enumerate(train.classes)}
    if missing := [name for name in val.classes if name not in places]:
        raise ValueError(f"--val has a class {missing[0]!r} that --data has not ({len(missing)} such classes)")
    renamed = np.array([places[name] for name in val.classes], dtype=np.int64)
    return labels[0], np.where(labels[1] >= 0, renamed[labels[1]], -1)


def preprocessing(size: int, settings: FeatureSettings, model: Model) -> dict[str, Any]:
    unless = "" if settings.resize else "; an image whose short side is the crop already is not resized"
    crop = f"centre, {size} px"
    if settings.aspect == "native":
        crop += f" by the same share of the longer side, down to a multiple of {model.encoder.stride} px"
    return {
        "resize": f"short side to {settings.resize or round(size * 256 / 224)} px, bicubic, antialiased{unless}",
        "crop": crop,
        "mean": list(model.normalisation.mean),
        "std": list(model.normalisation.std),
    }


def named(data: Any) -> str:
    return os.fspath(data) if isinstance(data, str | os.PathLike) else type(data).__name__


def describe(model: Model) -> dict[str, Any]:
    return {
        "name": model.name,
        "checkpoint_sha256": model.checkpoint_sha256,
        "weights_sha256": model.weights_sha256,
    }
