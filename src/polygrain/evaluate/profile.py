"""Which granularities a model's features serve: one number in [0, 1] for each, side by side."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from polygrain.data.images import Images
from polygrain.evaluate.labelled import constant
from polygrain.evaluate.sampling import Floats, Sample
from polygrain.evaluate.settings.unlabelled import LookSettings
from polygrain.evaluate.unlabelled.instance import found
from polygrain.evaluate.unlabelled.looking import Looked, Opened, look, open_and_draw
from polygrain.evaluate.unlabelled.neighbourhood import neighbour_lists, overlap
from polygrain.losses.neighbours import Neighbours, nearest, ranked_classes, weighted_votes

VOTERS, TEMPERATURE = 20, 0.07  # of kNN, as in DINO (arXiv:2104.14294)
CONSTANT = "the features of all images are the same: this model tells no image from another"

Labels = Mapping[str, NDArray[np.int64]]


class Grain(NamedTuple):
    """One granularity."""

    name: str  # "region", "instance", "neighbourhood", "fine", "coarse"
    value: float  # share in [0, 1], more is better
    low: float  # of the 95 % interval
    high: float
    chance: float  # what features without information give
    about: str  # one line: what was measured
    sample: Sample  # what it was measured on


class Profile(NamedTuple):
    """The granularities of one model on one set of images, from small to large."""

    model: str
    grains: tuple[Grain, ...]
    facts: dict[str, Any]  # all that decides the numbers besides the model
    notes: tuple[str, ...]


def granularity_profile(
    model: Any, images: Any, labels: Labels | NDArray[np.int64] | None = None, settings: LookSettings | None = None
) -> Profile:
    """Region, instance and neighbourhood, and kNN on every set of labels there is.

    Args:
        model: what `open_model` takes.
        images: what `open_images` takes.
        labels: by name ("fine", "coarse"), each (number of images in the source,) with -1 for none; an array alone
            is "fine". See `labels_of`.

    Raises:
        ValueError: when labels do not fit the images, or something handed in cannot be used.
    """
    settings = settings or LookSettings()
    named_labels = {} if labels is None else dict(labels) if isinstance(labels, Mapping) else {"fine": labels}
    opened = open_and_draw(model, images, settings)
    for name, of_all in named_labels.items():
        if len(of_all) != len(opened.images):
            raise ValueError(f"{len(of_all)} labels named {name!r} for {len(opened.images)} images; give one for each")
    grains = [*profile_of(opened, look(opened, settings, {}), settings)]
    grains += [knn_grain(name, opened.plain, of_all[opened.positions]) for name, of_all in named_labels.items()]
    notes = (*opened.notes, CONSTANT) if constant(opened.plain) else opened.notes
    digests = {name: _digest(of_all[opened.positions]) for name, of_all in named_labels.items()}
    return Profile(opened.model.name, tuple(grains), opened.facts | {"labels": digests}, notes)


def labels_of(images: Images, hierarchy: str | os.PathLike[str] | None = None) -> Labels:
    """The classes of a source as "fine" labels and, with a hierarchy, their groups as "coarse" ones.

    Args:
        hierarchy: JSON file with the name of a group for the name of each class, as in {"tabby": "cat", ...}.

    Raises:
        ValueError: when a class has no group, or the source has no names of classes.
    """
    fine = images.labels()
    if fine is None or not (fine >= 0).any():
        return {}
    if hierarchy is None:
        return {"fine": fine}
    groups = json.loads(Path(hierarchy).read_text())
    if images.classes is None:
        raise ValueError("these images have no names of classes that a hierarchy could group")
    if missing := [name for name in images.classes if name not in groups]:
        raise ValueError(f"{os.fspath(hierarchy)!r} has no group for class {missing[0]!r} ({len(missing)} such)")
    names = sorted({groups[name] for name in images.classes})
    group_of = np.array([names.index(groups[name]) for name in images.classes], dtype=np.int64)
    return {"fine": fine, "coarse": np.where(fine >= 0, group_of[fine], -1)}


def profile_of(opened: Opened, looked: Looked, settings: LookSettings) -> list[Grain]:
    """The grains that need no labels."""
    plain, seed = opened.plain, settings.seed
    agreement = looked.regions.agreement
    seen = torch.stack([agreement.found, agreement.chance], 1)
    seen = seen[~seen.isnan().any(1)]
    rows, columns = looked.regions.grid
    grains = []
    if len(seen) and rows * columns > 1:
        about = f"patches of a crop that find their place among the {rows * columns} of another crop of the image"
        grains.append(_grain("region", Sample(seen.numpy()), float(seen[:, 1].mean()), about, seed))
    own = np.mean([found(view, plain) for view in looked.views.unbind(1)], axis=0)
    about = f"random crops in random colours that find their image among {len(plain):,}"
    grains.append(_grain("instance", Sample(own), 1 / len(plain), about, seed))
    k = min(settings.neighbours, len(plain) - 1)
    kept = kept_neighbours(looked.views, plain, k)
    about = f"of the {k} nearest images, those that stay when an image is cropped and recoloured at random"
    grains.append(_grain("neighbourhood", Sample(kept), k / (len(plain) - 1), about, seed))
    return grains


def kept_neighbours(views: Tensor, plain: Tensor, k: int) -> Floats:
    """(M,) share of the k nearest images of each that stay when it is changed: mean over views (M, V, D)."""
    before = neighbour_lists(plain[: len(views)], plain, k)
    each: Floats = np.stack([overlap(before, neighbour_lists(view, plain, k)) for view in views.unbind(1)])
    return np.asarray(each.mean(0))


def knn_grain(name: str, features: Tensor, labels: NDArray[np.int64]) -> Grain:
    """Weighted kNN, each image by all others: share of right answers.

    Args:
        features: (N, D); `labels`: (N,), -1 for none.

    Raises:
        ValueError: when fewer than two images have a label.
    """
    kept = torch.from_numpy(np.flatnonzero(labels >= 0))
    if len(kept) < 2:
        raise ValueError(f"{len(kept)} of the images drawn have a label named {name!r}; kNN needs two or more")
    rows, truth = features[kept], torch.from_numpy(labels)[kept]
    k = min(VOTERS, len(rows) - 1)
    with_self = nearest(rows, rows, k + 1)
    own = with_self.rows == torch.arange(len(rows))[:, None]
    own[~own.any(1), -1] = True
    others = Neighbours(with_self.similarity[~own].view(-1, k), with_self.rows[~own].view(-1, k))
    classes = int(truth.max()) + 1
    (votes,) = weighted_votes(others, truth, classes=classes, ks=[k], temperature=TEMPERATURE)
    right = (ranked_classes(votes, 1)[:, 0] == truth).double().numpy()
    shares = torch.bincount(truth).double() / len(truth)
    about = f"images of {int((shares > 0).sum())} classes whose {k} nearest other images vote for their class"
    return _grain(name, Sample(right), float(shares.max()), about)


def _digest(labels: NDArray[np.int64]) -> str:
    return hashlib.blake2b(labels.astype(np.int64).tobytes(), digest_size=16).hexdigest()


def _grain(name: str, sample: Sample, chance: float, about: str, seed: int = 0) -> Grain:
    return Grain(name, *sample.estimate(seed=seed), chance, about, sample)
