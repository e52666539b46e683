"""A part of the training images: so many of each class, or those on a list."""

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from polygrain.data.images import Images


class Choice(NamedTuple):
    """Which training images are used; all of them if neither is given."""

    share: float | None = None  # of each class
    list: str | None = None  # a file that names them


class Chosen(NamedTuple):
    """The training images that are used, and what to say about them."""

    positions: NDArray[np.int64]
    facts: dict[str, Any]
    details: dict[str, Any]
    notes: tuple[str, ...]


def choose(
    images: Images, labels: NDArray[np.int64], positions: NDArray[np.int64], choice: Choice, seed: int
) -> Chosen:
    """Those of the images at `positions` that are chosen, in order.

    Args:
        labels: (len(images),) class of every image.

    Raises:
        ValueError: see `on_list`.
    """
    if choice.list is not None:
        return on_list(images, positions, choice.list)
    if choice.share is None or choice.share == 1:
        return Chosen(positions, {}, {}, ())
    kept = positions[stratified(labels[positions], choice.share, seed)]
    digest = hashlib.sha256(kept.tobytes()).hexdigest()  # not of the names, which may hold where the images lie
    note = f"{len(kept):,} of {len(positions):,} training images ({choice.share:.3g} of each class, 1 at least)"
    names = [images.name(int(i)) for i in kept]
    return Chosen(kept, {"share": choice.share, "sha256": digest}, {"names": names}, (note,))


def stratified(labels: NDArray[np.int64], share: float, seed: int) -> NDArray[np.int64]:
    """Rows of a share of each class, one at least, in order; a smaller share of the same seed is a part of a larger.

    Args:
        labels: (n,).
    """
    rows = [per_class(labels, c, max(1, round(share * int((labels == c).sum()))), seed) for c in np.unique(labels)]
    return np.sort(np.concatenate(rows))


def per_class(labels: NDArray[np.int64], wanted: int, count: int, seed: int) -> NDArray[np.int64]:
    """So many random rows of one class, or all there are."""
    rows = np.flatnonzero(labels == wanted)
    order: NDArray[np.int64] = np.random.default_rng([seed, wanted]).permutation(rows)
    return order[:count]


def on_list(images: Images, positions: NDArray[np.int64], file: str) -> Chosen:
    """The images that a list names, one to a line, as SimCLR's lists for ImageNet do (`1percent.txt`).

    A line is the end of a name: "n01440764_10026.JPEG" is that of any folder or shard, "n01440764/n01440764_10026.JPEG"
    says the folder too.

    Raises:
        ValueError: when there is no such file, it is no UTF-8 text, it names none of the images, or one line fits
            several.
    """
    if not Path(file).is_file():
        raise ValueError(f"no list {file!r}; give a text file with one image name to a line")
    content = Path(file).read_bytes()
    try:
        text = content.decode("utf-8-sig")  # some editors put a mark of the encoding before the first name
    except UnicodeDecodeError as error:
        raise ValueError(f"{file!r} is no UTF-8 text (byte {error.start:,}); save it as UTF-8") from error
    lines = {line.strip() for line in text.splitlines() if line.strip()}
    parts = {line.count("/") + 1 for line in lines}
    found: dict[str, list[int]] = {}
    for i in positions.tolist():
        name = images.name(i).replace(":", "/")
        for count in parts:
            end = "/".join(name.split("/")[-count:])
            if end in lines:
                found.setdefault(end, []).append(i)
    if twice := [line for line, places in found.items() if len(places) > 1]:
        raise ValueError(f"{file!r} names {twice[0]!r}, which fits {len(found[twice[0]])} images; write its folder too")
    if not found:
        example = images.name(int(positions[0]))
        raise ValueError(f"{file!r} names none of the {len(positions):,} images, which are called {example!r} ...")
    kept = np.array(sorted(place for (place,) in found.values()), np.int64)
    digest = hashlib.sha256(content).hexdigest()
    missing = Counter(lines - found.keys())
    note = f"{len(kept):,} training images from {file} ({len(lines):,} names, sha256 {digest[:12]})"
    if missing:
        note += f"; {len(missing):,} names have no image, such as {min(missing)!r}"
    return Chosen(kept, {"list_sha256": digest}, {"list": file, "sha256": digest, "names": len(lines)}, (note,))
