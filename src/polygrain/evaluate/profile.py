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
from polygrain.evaluate.result import fingerprint
from polygrain.evaluate.sampling import Floats, Sample
from polygrain.evaluate.settings.unlabelled import LookSettings
from polygrain.evaluate.unlabelled.instance import found
from polygrain.evaluate.unlabelled.looking import RECIPE, SCALE, Looked, Opened, look, open_and_draw
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

    @property
    def fingerprint(self) -> str:
        """Differs where two profiles cannot be compared."""
        return fingerprint("profile", self.facts)


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
    return profile_from(open_and_draw(model, images, settings), named_labels, settings)


def profile_from(opened: Opened, named_labels: Labels, settings: LookSettings) -> Profile:
    """The profile of a model whose plain vectors are there already; see `granularity_profile`."""
    for name, of_all in named_labels.items():
        if len(of_all) != len(opened.images):
            raise ValueError(f"{len(of_all)} labels named {name!r} for {len(opened.images)} images; give one for each")
    looked = look(opened, settings, {})
    grains = profile_of(opened, looked, settings)
    grains += [knn_grain(name, opened.plain, of_all[opened.positions]) for name, of_all in named_labels.items()]
    notes = (*opened.notes, CONSTANT) if constant(opened.plain) else opened.notes
    digests = {name: _digest(of_all[opened.positions]) for name, of_all in named_labels.items()}
    facts = opened.facts | {
        "labels": digests,
        "knn": {"k": VOTERS, "temperature": TEMPERATURE},
        "crops": {"scale": list(SCALE), "recipe": RECIPE},
        "regions": list(looked.regions.grid),
    }
    return Profile(opened.model.name, tuple(grains), facts, notes)


def labels_of(images: Images, hierarchy: str | os.PathLike[str] | None = None) -> Labels:
    """The classes of a source as "fine" labels and, with a hierarchy, their groups as "coarse" ones.

    Args:
        hierarchy: JSON file with the name of a group for the name of each class, as in {"tabby": "cat", ...}.

    Raises:
        ValueError: when a class has no group, or the source has no labels or no names of classes.
    """
    fine = images.labels()
    if fine is None or not (fine >= 0).any():
        if hierarchy is not None:
            raise ValueError(f"these images have no labels that {os.fspath(hierarchy)!r} could group")
        return {}
    if hierarchy is None:
        return {"fine": fine}
    groups = read_hierarchy(hierarchy)
    if images.classes is None:
        raise ValueError("these images have no names of classes that a hierarchy could group")
    if missing := [name for name in images.classes if name not in groups]:
        raise ValueError(f"{os.fspath(hierarchy)!r} has no group for class {missing[0]!r} ({len(missing)} such)")
    names = sorted({groups[name] for name in images.classes})
    group_of = np.array([names.index(groups[name]) for name in images.classes], dtype=np.int64)
    return {"fine": fine, "coarse": np.where(fine >= 0, group_of[fine], -1)}


def read_hierarchy(path: str | os.PathLike[str]) -> dict[str, str]:
    """The name of a group for the name of each class.

    Raises:
        ValueError: when this is no file that says so.
    """
    try:
        groups = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        told = error.strerror if isinstance(error, OSError) else f"no JSON ({error})"
        raise ValueError(f"hierarchy {os.fspath(path)!r}: {told}") from error
    if not isinstance(groups, dict) or not all(isinstance(group, str) for group in groups.values()):
        raise ValueError(f'hierarchy {os.fspath(path)!r} must look like {{"tabby": "cat", ...}}')
    return groups


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
    if constant(plain):
        return grains  # without neighbours; which images come first is rounding
    k = min(settings.neighbours, len(plain) - 1)
    kept = kept_neighbours(looked.views, plain, k, seed)
    about = f"of the {k} nearest images, those that stay when an image is cropped and recoloured at random"
    grains.append(_grain("neighbourhood", Sample(kept), k / (len(plain) - 1), about, seed))
    return grains


def kept_neighbours(views: Tensor, plain: Tensor, k: int, seed: int = 0) -> Floats:
    """(M,) share of the k nearest images of each that stay when it is changed: mean over views (M, V, D).

    Equally near images are taken in an order of their own in each list. In the order of the bank, a model that gives
    many images one vector would find the same ones again and again.
    """
    random = torch.Generator().manual_seed(seed)

    def lists(queries: Tensor) -> Tensor:
        return neighbour_lists(queries, plain, k, torch.randperm(len(plain), generator=random))

    before = lists(plain[: len(views)])
    each: Floats = np.stack([overlap(before, lists(view)) for view in views.unbind(1)])
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
