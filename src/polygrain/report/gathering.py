"""All that a report needs to know of each model: vectors of the images, codes of their regions, neighbours, groups."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from polygrain.data.centred import Box, centred_box
from polygrain.data.images import Images
from polygrain.data.part import Part
from polygrain.evaluate.features import Views, encoded
from polygrain.evaluate.labelled import constant
from polygrain.evaluate.models import Model, pick_device
from polygrain.losses.neighbours import nearest
from polygrain.parts.kmeans import kmeans
from polygrain.report import codes
from polygrain.report.settings import ReportSettings
from polygrain.report.thumbnails import Sheets, allowed_side, sheets, thumbnail

NEIGHBOURS = 16
SHARED, KEPT = 8, 10  # characters with which all names begin, from which on they are cut, and those that stay
FITTED = 256  # images whose patches the basis of the codes is fitted to


class Shown(NamedTuple):
    """The images of a report."""

    images: Part
    names: list[str]
    labels: NDArray[np.int64] | None  # (n,) -1 where an image has none
    classes: list[str]
    sides: list[tuple[int, int]]  # height, width of each image
    sheets: Sheets
    broken: int


class Seen(NamedTuple):
    """What one model makes of them."""

    name: str
    model: Model
    views: Views
    pooled: Tensor  # (n, D)
    codes: Tensor  # (n, rows * columns, d) int8
    rest: Tensor  # (n, rows * columns) uint8, what the codes leave out
    grid: tuple[int, int]  # of the regions that can be searched
    step: float  # what one unit of a code is worth
    code_agreement: float  # share of the nearest regions of all images that codes find, too
    share: NDArray[np.float64]  # (n,) side of what this model sees, in sides of what the thumbnail shows
    neighbours: Tensor  # (n, k) long, nearest first, without the image itself
    cosines: Tensor  # (n, k)
    groups: Tensor  # (n,) long, the largest group is 0
    distances: Tensor  # (n,) to the centre of the group
    notes: tuple[str, ...]


def draw_images(source: Images, views: Views, settings: ReportSettings) -> Shown:
    """Draws the images and makes their thumbnails, cut as `views` cuts them; those that cannot be decoded are left out.

    Raises:
        ValueError: when fewer than two can be decoded, or fewer than there shall be groups.
    """
    chosen = np.arange(len(source))
    if len(source) > settings.images:
        chosen = np.sort(np.random.default_rng(settings.seed).choice(len(source), settings.images, replace=False))
    decoded, boxes, kept, pictures = [], [], [], []
    largest = allowed_side(len(chosen))
    for i in chosen.tolist():
        image, read = source.read(i)
        if read != i:
            continue
        height, width = image.shape[-2:]
        box, _ = centred_box(height, width, views.size, views.resize)
        decoded.append((height, width))
        boxes.append(box)
        kept.append(i)
        pictures.append(thumbnail(image, box, largest))
    if len(kept) < 2:
        raise ValueError(f"{len(kept)} of {len(chosen)} images can be decoded; a report needs two or more")
    if settings.groups is not None and settings.groups > len(kept):
        raise ValueError(f"groups is {settings.groups}; of {len(kept)} images there can be {len(kept)} at most")
    part = Part(source, kept)
    # small images are not blown up
    made = sheets(pictures, max(16, min(largest, round(float(np.median([box.height for box in boxes]))))))
    labels = part.labels()
    if labels is not None and not (labels >= 0).any():
        labels = None
    classes = part.classes or ([] if labels is None else [f"class {c}" for c in range(int(labels.max()) + 1)])
    names = without_common_folder([part.name(i) for i in range(len(part))])
    return Shown(part, names, labels, classes, decoded, made, len(chosen) - len(kept))


def see(name: str, model: Model, shown: Shown, reference: Views, settings: ReportSettings, budget: int) -> Seen:
    """Encodes all images once.

    Args:
        reference: how the thumbnails are cut.
        budget: bytes for the codes of regions.
    """
    views = Views(shown.images, settings.size or model.image_size, settings.resize, model.normalisation)
    found = _encode(model, views, settings, budget)
    pooled = found.pooled
    own, theirs = ([_box(views_of, sides) for sides in shown.sides] for views_of in (views, reference))
    share = np.array([a.height / b.height for a, b in zip(own, theirs, strict=True)])
    k = min(NEIGHBOURS, len(pooled) - 1)
    rows, cosines = others(pooled, k)
    groups, distances = group(pooled, settings)
    told = "The features of all images are the same: this model tells no image from another."
    notes = (told,) if constant(pooled) else ()
    return Seen(name, model, views, *found, share, rows, cosines, groups, distances, notes)


def _box(views: Views, sides: tuple[int, int]) -> Box:
    return centred_box(*sides, views.size, views.resize)[0]


class Encoded(NamedTuple):
    """Fields of `Seen` that come from the encoder."""

    pooled: Tensor
    codes: Tensor
    rest: Tensor
    grid: tuple[int, int]
    step: float
    code_agreement: float


def _encode(model: Model, views: Views, settings: ReportSettings, budget: int) -> Encoded:
    """Vectors and codes of all images, in order. Images come in random order, so the first ones fit the codes."""
    count = len(views.images)
    order = np.random.default_rng(settings.seed).permutation(count)
    batches = [order[start : start + settings.batch_size] for start in range(0, count, settings.batch_size)]
    parts = encoded(
        model.encoder,
        views,
        batches,
        readout=settings.readout,
        workers=settings.workers,
        device=pick_device(settings.device),
        patches=True,
    )
    pooled, kept, waiting = [], [], []
    rest, basis, check, planned = [], None, None, None
    for part, last in _with_last(parts):
        assert part.patches is not None
        planned = planned or codes.plan(count, part.grid, part.patches.shape[-1], budget)
        pooled.append(part.pooled)
        waiting.append(codes.cells(part.patches, part.grid, planned.pooled))
        if basis is None and (last or sum(map(len, waiting)) >= FITTED):
            fitted = torch.cat(waiting)
            grid = (fitted.shape[1], fitted.shape[2])
            basis = codes.fit(fitted.flatten(0, 2), planned.dims)
            check = codes.Agreement(basis, fitted.flatten(1, 2), basis.codes(fitted).flatten(1, 2))
        if basis is not None and check is not None:
            for cells in (maps.flatten(1, 2) for maps in waiting):
                kept.append(basis.codes(cells))
                rest.append(basis.rest(cells))
                check.add(cells, kept[-1], rest[-1])
            waiting = []
    back = torch.from_numpy(np.argsort(order))
    assert basis is not None
    assert check is not None
    vectors, numbers, lengths = (torch.cat(parts)[back] for parts in (pooled, kept, rest))
    return Encoded(vectors, numbers, lengths, grid, basis.step, check.share())


def _with_last(items: Iterator[Any]) -> Iterator[tuple[Any, bool]]:
    before = next(items)
    for item in items:
        yield before, False
        before = item
    yield before, True


def others(vectors: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k rows nearest to each by cosine, without itself, and their cosines: (n, k) each."""
    found = nearest(vectors, vectors, k + 1)
    own = found.rows == torch.arange(len(vectors))[:, None]
    own[~own.any(1), -1] = True  # many copies of it were nearer
    return found.rows[~own].view(-1, k), found.similarity[~own].view(-1, k)


def group(pooled: Tensor, settings: ReportSettings) -> tuple[Tensor, Tensor]:
    """k-means of the directions: the group of each image, 0 the largest, and its distance to the centre, both (n,)."""
    count = settings.groups or max(2, round((len(pooled) / 2) ** 0.5))
    found = kmeans(F.normalize(pooled, dim=1), count, iterations=30, redos=3, seed=settings.seed)
    sizes = torch.bincount(found.clusters, minlength=count)
    rank = sizes.argsort(descending=True, stable=True).argsort()
    return rank[found.clusters], found.distances


def without_common_folder(names: Sequence[str]) -> list[str]:
    """Names without the folders that all of them are in, where they are absolute."""
    paths = [Path(name) for name in names]
    if not all(path.is_absolute() for path in paths):
        return list(names)
    shared = os.path.commonpath({path.parent for path in paths})
    return [str(path.relative_to(shared)) for path in paths]


def _without_suffix(path: Path) -> Path:
    """Of files; what follows the dot of a folder, as in lr0.1, is part of its name."""
    return path if path.is_dir() else path.with_suffix("")


def short_names(models: Sequence[str]) -> list[str]:
    """The last two parts of paths, or as many as tell them apart; other names as they are, equal ones numbered."""
    short = list(models)
    for parts in range(9, 1, -1):
        fewer = [
            m if not Path(m).exists() else "/".join(_without_suffix(Path(m).absolute()).parts[-parts:]) for m in models
        ]
        short = fewer if len(set(fewer)) == len(set(models)) else short
    before = [short[:i].count(name) for i, name in enumerate(short)]
    return [f"{name} ({count + 1})" if count else name for name, count in zip(short, before, strict=True)]


def tags(names: Sequence[str]) -> list[str]:
    """Names for narrow places: without the beginning that all share, where that is long."""
    alike = [len(set(signs)) == 1 for signs in zip(*names, strict=False)]
    shared = names[0][: [*alike, False].index(False)] if len(names) > 1 else ""
    spared = shared[: max(0, min(map(len, names)) - KEPT)]
    cut = max(spared.rfind(sign) for sign in "/:._-") + 1
    return [f"…{name[cut:]}" for name in names] if cut >= SHARED else list(names)
