"""One numbering of classes for training and validation images, and what is odd about it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from polygrain.data.images import Images

EXAMPLES = 3  # named in a note
TWO_CLASSES = "give images of two classes or more"


def common_labels(train: Images, val: Images) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Labels of both sets with the same number for the same class, -1 where an image has none.

    A folder numbers the classes it holds, so where both sources name their classes the names decide.

    Raises:
        ValueError: when a set has no labels, or `val` has a class that `data` has not.
    """
    labels = []
    for name, images in (("--data", train), ("--val", val)):
        found = images.labels()
        if found is None or not (found >= 0).any():
            if images.only_folder is not None:
                raise ValueError(f"all images of {name} lie in one folder, {images.only_folder!r}; {TWO_CLASSES}")
            raise ValueError(
                f"the images of {name} have no labels; a class folder, .cls members or a dataset gives them"
            )
        if images.classes is not None and found.max() >= len(images.classes):
            first = images.name(int(found.argmax()))
            raise ValueError(
                f"{first!r} of {name} has label {found.max()}, and its source names {len(images.classes)} classes "
                f"(0 to {len(images.classes) - 1}); correct the label"
            )
        labels.append(found)
    if train.classes is None or val.classes is None or train.classes == val.classes:
        return labels[0], labels[1]
    places = {name: place for place, name in enumerate(train.classes)}
    if missing := [name for name in val.classes if name not in places]:
        raise ValueError(f"--val has a class {missing[0]!r} that --data has not ({len(missing)} such classes)")
    renamed = np.array([places[name] for name in val.classes], dtype=np.int64)
    return labels[0], np.where(labels[1] >= 0, renamed[labels[1]], -1)


def numbered(
    train: NDArray[np.int64], val: NDArray[np.int64], several: tuple[str, ...] = ("--data", "--val")
) -> tuple[tuple[NDArray[np.int64], NDArray[np.int64]], NDArray[np.int64], list[str]]:
    """The same labels with classes 0 to C - 1, the old number of each (C,), and a note where numbers changed.

    Args:
        several: the splits that must have two classes or more.

    Raises:
        ValueError: when one of them has one class only.
    """
    for name, labels in (("--data", train), ("--val", val)):
        if name in several and len(present := np.unique(labels[labels >= 0])) == 1:
            raise ValueError(
                f"all images of {name} have the same class ({present[0]}), so there is nothing to tell apart; "
                f"{TWO_CLASSES}"
            )
    old = np.unique(np.concatenate([train, val]))
    old = old[old >= 0]
    notes = []
    if len(old) <= old[-1]:
        notes.append(f"class numbers run from {old[0]} to {old[-1]} with {len(old)} in use, which were numbered anew")
    first, second = (np.where(labels >= 0, np.searchsorted(old, labels), -1) for labels in (train, val))
    return (first, second), old, notes


def absent(train: NDArray[np.int64], val: NDArray[np.int64], names: Any) -> list[str]:
    """Notes on classes that only one split has.

    Args:
        train: labels of the training images that are used, and val: of the others, 0 to C - 1.
        names: of the classes, by label.
    """
    notes = []
    missing = np.setdiff1d(val, train)
    if len(missing):
        images = int(np.isin(val, missing).sum())
        notes.append(
            f"no training image is of {_listed(missing, names)}: {images} validation images that cannot be right"
        )
    missing = np.setdiff1d(train, val)
    if len(missing):
        notes.append(f"no validation image is of {_listed(missing, names)}")
    return notes


def _listed(classes: NDArray[np.int64], names: Any) -> str:
    some = ", ".join(repr(str(names[c])) for c in classes[:EXAMPLES])
    more = f" and {len(classes) - EXAMPLES} more" if len(classes) > EXAMPLES else ""
    return f"class{'es' if len(classes) > 1 else ''} {some}{more}"
