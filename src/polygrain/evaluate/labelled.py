"""Features of labelled training and validation images: what every classification protocol starts from."""

import hashlib
import os
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from polygrain.data.part import Part
from polygrain.data.sources import Images, open_images
from polygrain.evaluate import cache
from polygrain.evaluate.classes import absent, common_labels, numbered
from polygrain.evaluate.decodable import decodable
from polygrain.evaluate.features import Views
from polygrain.evaluate.models import Model, open_model, pick_device
from polygrain.evaluate.overlap import shared
from polygrain.evaluate.readouts import IN_WORDS
from polygrain.evaluate.result import versions
from polygrain.evaluate.settings import FeatureSettings
from polygrain.evaluate.settings.base import AspectSettings
from polygrain.evaluate.subsets import Choice, choose

ALL = Choice()


class Side(NamedTuple):
    """The images of one split that have a class."""

    images: Images
    views: Views
    labels: NDArray[np.int64]  # (len(images),) class of every image, -1 for none
    positions: NDArray[np.int64]  # (n,) of the images that are used


class Sets(NamedTuple):
    """A model and labelled images to train and to test with."""

    model: Model
    size: int  # of the crops, in pixels
    train: Side
    val: Side
    classes: int
    subset: dict[str, Any]  # what is known of the part of the training images that is used; empty for all
    details: dict[str, Any]
    notes: tuple[str, ...]


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

    def in_float64(self) -> "Labelled":
        """The same where float64 can be had: Apple's devices have none."""
        if self.train.device.type != "mps":
            return self
        return self._replace(
            train=self.train.cpu(),
            train_labels=self.train_labels.cpu(),
            val=self.val.cpu(),
            val_labels=self.val_labels.cpu(),
        )


def labelled_features(model: Any, data: Any, val: Any, settings: FeatureSettings, subset: Choice = ALL) -> Labelled:
    """Opens the model and both sets, and encodes every labelled image once.

    Args:
        model: what `open_model` takes; `data` and `val`: what `open_images` takes.
        subset: which of the training images are used.

    Raises:
        ValueError: when a set has no labels or one class only, or `val` has a class that `data` has not.
    """
    return encoded_sets(open_sets(model, data, val, settings, subset), settings)


def open_sets(model: Any, data: Any, val: Any, settings: AspectSettings, subset: Choice = ALL) -> Sets:
    """Opens the model and both sets, and decodes no image yet.

    Raises:
        ValueError: see `labelled_features`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)  # of the weights of an untrained encoder
        opened = open_model(model)
    size = settings.size or opened.image_size
    channels = opened.encoder.channels
    images = [open_images(data, channels), open_images(val, channels)]
    labels, old, notes = numbered(*common_labels(*images))
    names = np.array(images[0].classes)[old] if images[0].classes is not None else old
    found = [np.flatnonzero(of >= 0) for of in labels]
    for name, source, positions in zip(("training", "validation"), images, found, strict=True):
        if len(positions) < len(source):
            notes.append(f"{len(source) - len(positions)} {name} images have no label and are left out")
    chosen = choose(images[0], labels[0], found[0], subset, settings.seed)
    notes += [*chosen.notes, *absent(labels[0][chosen.positions], labels[1][found[1]], names)]
    sides = [
        Side(source, Views(source, size, settings.resize, opened.normalisation, settings.aspect), of, positions)
        for source, of, positions in zip(images, labels, (chosen.positions, found[1]), strict=True)
    ]
    sides[0].views.check()
    details = {"data": named(data), "val": named(val), "versions": versions()}
    details |= {"subset": chosen.details} if chosen.details else {}
    return Sets(opened, size, sides[0], sides[1], len(old), chosen.facts, details, tuple(notes))


def only_decodable(sets: Sets, workers: int | None) -> Sets:
    """The sets without images that cannot be decoded, for training that reads them anew in every epoch.

    Each image is decoded once for it, so that what is held out, counted and told is what is used.
    """
    notes = list(sets.notes)
    train, val = (
        side._replace(positions=decodable(side.images, side.positions, workers)) for side in (sets.train, sets.val)
    )
    for name, before, side in (("training", sets.train, train), ("validation", sets.val, val)):
        notes += left_out(len(before.positions) - len(side.positions), name)
    return sets._replace(train=train, val=val, notes=tuple(notes))


def left_out(count: int, name: str) -> list[str]:
    """The note about images that cannot be decoded, where there are any."""
    return [f"{count} {name} images cannot be decoded and are left out"] if count else []


def encoded_sets(sets: Sets, settings: FeatureSettings) -> Labelled:
    """The features of both splits."""
    notes = list(sets.notes)
    (train, train_labels, _), (val, val_labels, _) = (
        encoded_side(sets, side, side.positions, settings, notes) for side in (sets.train, sets.val)
    )
    if constant(train):
        notes.append("the features of all training images are the same: this model tells no image from another")
    elif both := shared(train, val):
        told = "have the features of a training image: copies, or pictures that this model cannot tell apart"
        notes.append(f"{both:,} of {len(val):,} validation images {told}")
    facts = facts_of(sets, train_labels, val_labels, settings)
    described = describe(sets.model) | {"dimensions": train.shape[1]}
    return Labelled(train, train_labels, val, val_labels, sets.classes, facts, described, sets.details, tuple(notes))


def encoded_side(
    sets: Sets, side: Side, positions: NDArray[np.int64], settings: FeatureSettings, notes: list[str]
) -> tuple[Tensor, Tensor, NDArray[np.int64]]:
    """Features (n, D), labels (n,) and positions (n,) of those images of a split that can be decoded.

    Args:
        notes: gets a line about each thing a reader must know.
    """
    device = pick_device(settings.device)
    seen, note = cache.features(sets.model, side.views, positions, settings)
    notes += [note] if note else []
    notes += left_out(len(positions) - len(seen.positions), "training" if side is sets.train else "validation")
    labels = torch.from_numpy(side.labels)[seen.positions].to(device)
    return seen.pooled.to(device), labels, seen.positions.numpy()


def facts_of(sets: Sets, train_labels: Tensor, val_labels: Tensor, settings: AspectSettings) -> dict[str, Any]:
    """All that decides the numbers of a classification besides the model.

    Args:
        train_labels: (N,) and val_labels: (n,), of the images that were used.
    """
    counts = torch.bincount(val_labels, minlength=sets.classes)
    return {
        "data": data_facts(sets.train.images, train_labels) | sets.subset,
        "val": data_facts(sets.val.images, val_labels),
        "classes": sets.classes,
        "chance": 1 / sets.classes,
        "largest_class": counts.max().item() / len(val_labels),
        "preprocessing": preprocessing(sets.val.views, sets.model),
        "features": IN_WORDS[settings.readout] + ", float32",
        "settings": settings.of_protocol() | {"size": sets.size},
    }


def constant(features: Tensor) -> bool:
    """Whether all rows (n, D) are the same, up to what float32 can tell."""
    spread = (features - features.mean(0)).abs().max()
    return bool(len(features) > 1 and spread <= 1e-6 * features.abs().max())


def data_facts(images: Images, labels: Tensor) -> dict[str, Any]:
    """What was measured on, so that another set, or the same with other labels, is known to be another."""
    digest = hashlib.blake2b(images.content().encode() + labels.cpu().numpy().tobytes(), digest_size=16)
    return {"images": len(labels), "digest": digest.hexdigest()}


def summary(seen: Labelled) -> str:
    """One line for people: which model, on what."""
    return f"{about(seen.model, seen.facts, seen.details)}; features of {seen.facts['data']['images']:,} images"


def about(model: dict[str, Any], facts: dict[str, Any], details: dict[str, Any]) -> str:
    """Which model, on what."""
    size = f"{facts['val']['images']:,} images of {facts['classes']} classes (chance {facts['chance']:.1%})"
    return f"{model['name']} on {details['val']}: {size}"


def preprocessing(views: Views, model: Model) -> dict[str, Any]:
    unless = "" if views.resize else "; an image whose short side is the crop already is not resized"
    crop = f"centre, {views.size} px"
    if views.aspect == "native":
        crop += f" by the same share of the longer side, down to a multiple of {model.encoder.stride} px"
    return {
        "resize": f"short side to {views.resize or round(views.size * 256 / 224)} px, bicubic, antialiased{unless}",
        "crop": crop,
    }


def named(data: Any) -> str:
    """What a person would call it: of a part of a source, how much of which one."""
    if isinstance(data, Part):
        return f"{len(data):,} of the {len(data.whole):,} images of {named(data.whole)}"
    if isinstance(data, Images) and data.opened_as is not None:
        return data.opened_as
    return os.fspath(data) if isinstance(data, str | os.PathLike) else type(data).__name__


def describe(model: Model) -> dict[str, Any]:
    """Which model it is; its normalisation is a part of it, as a first layer would be."""
    return {
        "name": model.name,
        "checkpoint_sha256": model.checkpoint_sha256,
        "weights_sha256": model.weights_sha256,
        "normalisation": {"mean": list(model.normalisation.mean), "std": list(model.normalisation.std)},
    }
