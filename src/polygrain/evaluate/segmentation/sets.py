"""Images with masks of both sets, their ids turned into classes; what is wrong with them is said before a long run."""

import hashlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from polygrain import distributed
from polygrain.data.mask_lists import Source, open_train_and_val
from polygrain.data.masks import LARGEST_ID, MaskedImages
from polygrain.evaluate.labelled import named
from polygrain.evaluate.result import versions
from polygrain.evaluate.settings.segmentation import SegmentationSettings

VOID = -1  # class of pixels that do not count
OUTSIDE = -2
USUAL_VOID = 255
MOST_CLASSES = 1024


class Pair(NamedTuple):
    """An image and the class of each of its pixels."""

    image: Tensor  # (C, H, W) uint8
    truth: Tensor  # (H, W) int16, VOID where it does not count


class Truth(NamedTuple):
    """A set of images with masks whose ids are classes."""

    masked: MaskedImages
    table: NDArray[np.int16]  # (65536,) class of each id

    def __len__(self) -> int:
        return len(self.masked)

    def take(self, rows: Iterable[int]) -> "Truth":
        return Truth(self.masked.take(rows), self.table)

    def pair(self, i: int) -> Pair:
        """Raises ValueError when the sizes of image and mask disagree."""
        image, truth = self.masked.image(i), torch.from_numpy(self.table[self.masked.ids(i)])
        if image.shape[1:] != truth.shape:
            raise _sizes_disagree(self.masked.name(i), tuple(image.shape[1:]), tuple(truth.shape))
        return Pair(image, truth)


class Sets(NamedTuple):
    """Both sets, and the facts of how they came about."""

    train: Truth
    val: Truth
    names: tuple[str, ...]  # of the classes
    facts: dict[str, Any]
    details: dict[str, Any]
    notes: tuple[str, ...]


class Scanned(NamedTuple):
    """What the masks of a set hold."""

    pixels: NDArray[np.int64]  # (65536,) by id
    holder: dict[int, str]  # the first image with each id
    images: list[bytes]  # a digest of each
    digest: str  # of images and masks


def open_sets(
    data: Source, val: Source | None, split: str | None, channels: int, settings: SegmentationSettings
) -> Sets:
    """Opens both sets and looks at every mask and at the file of every image once.

    Raises:
        ValueError: when an image has no mask or one of another size, or a mask no class ids or one out of range.
    """
    if distributed.world_size() > 1:
        raise ValueError("segmentation runs in one process; start it without torchrun")
    train, test = open_train_and_val(data, val, split, channels)
    scanned = {"training": scan(train), "validation": scan(test)}
    found = sum(part.pixels for part in scanned.values())
    ignored = settings.ignore_index if settings.ignore_index is not None else train.classes.ignore_index
    table, names = classes_of(
        np.flatnonzero(found),
        train.classes.names,
        count=settings.classes,
        ignore=USUAL_VOID if ignored is None else ignored,
        reduce_zero_label=settings.reduce_zero_label,
    )
    _check_range(table, scanned, len(names))
    counts = {kind: _by_class(table, part.pixels, len(names)) for kind, part in scanned.items()}
    notes = [note for kind, pixels in counts.items() for note in _empty(kind, pixels, names)]
    notes += [note for kind, masked in (("training", train), ("validation", test)) for note in _lone(kind, masked)]
    trained = set(scanned["training"].images)
    if shared := sum(image in trained for image in scanned["validation"].images):
        notes.append(f"{shared} images are in both sets, so the scores are too high")
    for kind, pixels in counts.items():
        if not pixels.any():
            raise ValueError(f"no pixel of the {kind} masks counts; ids are {_listed(scanned[kind].holder)}")
    shares = counts["validation"] / counts["validation"].sum()
    facts = {
        "data": {"images": len(train), "digest": scanned["training"].digest},
        "val": {"images": len(test), "digest": scanned["validation"].digest},
        "classes": len(names),
        "largest_class": float(shares.max()),
        "constant_miou": float(shares.max() / (shares > 0).sum()),
        "ignored": float(1 - counts["validation"].sum() / scanned["validation"].pixels.sum()),
        "masks": {"ignore_index": ignored, "reduce_zero_label": settings.reduce_zero_label},
    }
    details = {"data": _where(data), "val": _where(val), "split": split, "names": list(names), "versions": versions()}
    return Sets(Truth(train, table), Truth(test, table), names, facts, details, tuple(notes))


def scan(masked: MaskedImages) -> Scanned:
    """Reads every mask, and the file of every image.

    Raises:
        ValueError: when sizes disagree, or a mask holds no ids.
    """
    pixels = np.zeros(LARGEST_ID + 1, np.int64)
    holder: dict[int, str] = {}
    images: list[bytes] = []
    digest = hashlib.blake2b(digest_size=16)
    for i in range(len(masked)):
        ids = masked.ids(i)
        size, image = masked.stored(i)
        if size is not None and sorted(size) != sorted(ids.shape):  # the file may be stored lying on its side
            raise _sizes_disagree(masked.name(i), size, ids.shape)
        images.append(image)
        counts = np.bincount(ids.ravel(), minlength=len(pixels))
        for found in np.flatnonzero(counts):
            holder.setdefault(int(found), masked.name(i))
        pixels += counts
        digest.update(f"{masked.entries[i].name} {ids.shape}".encode() + ids.tobytes() + image)
    return Scanned(pixels, holder, images, digest.hexdigest())


def classes_of(
    ids: NDArray[np.int64],
    names: tuple[str, ...] | None,
    *,
    count: int | None,
    ignore: int,
    reduce_zero_label: bool,
) -> tuple[NDArray[np.int16], tuple[str, ...]]:
    """The class of each id, without gaps, and the names of the classes.

    Args:
        ids: those that occur.
        names: by id, where known; from id 1 on if 0 does not count.
        count: of ids, where it is told.

    Raises:
        ValueError: when the number of names is another than is told, or there is less than two classes.
    """
    start = 1 if reduce_zero_label else 0
    if names is not None and count is not None and len(names) != count:
        raise ValueError(f"classes is {count}, but classes.json names {len(names)}; omit --classes")
    highest = max((int(i) for i in ids if i != ignore), default=0)
    known = len(names) if names is not None else count or highest + 1 - start
    kept = [i for i in range(start, start + known) if i != ignore]
    if not 2 <= len(kept) <= MOST_CLASSES:
        raise ValueError(f"there are {len(kept)} classes besides {ignore} (ignored); wanted 2 to {MOST_CLASSES:,}")
    table = np.full(LARGEST_ID + 1, OUTSIDE, np.int16)
    table[kept] = np.arange(len(kept))
    if reduce_zero_label:
        table[0] = VOID
    if ignore <= LARGEST_ID:
        table[ignore] = VOID
    return table, tuple(names[i - start] if names is not None else str(i) for i in kept)


def _check_range(table: NDArray[np.int16], scanned: dict[str, Scanned], classes: int) -> None:
    for part in scanned.values():
        for found, holder in part.holder.items():
            if table[found] == OUTSIDE:
                good = np.flatnonzero(table >= 0)
                void = ", ".join(map(str, np.flatnonzero(table == VOID)))
                raise ValueError(
                    f"the mask of {holder!r} holds id {found}; the {classes} classes are {good[0]} to {good[-1]}, and "
                    f"{void} is ignored (--classes, --ignore-index)"
                )


def _by_class(table: NDArray[np.int16], pixels: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    kept = table >= 0
    return np.bincount(table[kept], weights=pixels[kept], minlength=classes).astype(np.int64)


def _empty(kind: str, pixels: NDArray[np.int64], names: tuple[str, ...]) -> list[str]:
    """A line about the classes without pixels, if there are any."""
    empty = [repr(name) for name, count in zip(names, pixels, strict=True) if not count]
    if not empty:
        return []
    which = ", ".join(empty[:5]) + ", ..." * (len(empty) > 5)
    return [f"{len(empty)} of {len(names)} classes have no pixel in the {kind} masks: {which}"]


def _lone(kind: str, masked: MaskedImages) -> list[str]:
    """A line about the masks without an image, if there are any."""
    count = len(masked.lone)
    return [f"{count} {kind} masks have no image and are left out, such as {masked.lone[0]!r}"] if count else []


def _listed(holder: dict[int, str]) -> str:
    return ", ".join(map(str, sorted(holder)[:8]))


def _where(data: Any) -> str | None:
    return None if data is None else data.where if isinstance(data, MaskedImages) else named(data)


def _sizes_disagree(name: str, image: tuple[int, ...], mask: tuple[int, ...]) -> ValueError:
    return ValueError(
        f"image {name!r} is {image[1]}x{image[0]} pixels and its mask {mask[1]}x{mask[0]}; they must be of one size"
    )
