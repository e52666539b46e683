"""Lists of images to leave out: one name a line, a tab, and why."""

import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from polygrain.data.escaping import escaped, one_line, unescaped
from polygrain.data.images import Images

HEADING = "# polygrain quarantine: name, tab, reason; names escaped with \\\\ and \\xNN"


def write_list(path: Path, entries: Iterable[tuple[str, str]]) -> int:
    """Writes names and reasons; returns how many."""
    lines = [f"{escaped(name)}\t{one_line(reason)}" for name, reason in entries]
    path.write_text("\n".join([HEADING, *lines]) + "\n", encoding="utf-8")
    return len(lines)


def read_list(path: Path) -> list[str]:
    """Names of a list; lines that begin with "#" and empty ones count for nothing.

    Raises:
        ValueError: when it is no such list.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{str(path)!r} is no list of names: {error.reason} at byte {error.start}") from error
    names = []
    for number, line in enumerate(lines, 1):
        if line and not line.startswith("#"):
            try:
                names.append(unescaped(line.removesuffix("\r").partition("\t")[0]))
            except ValueError as error:
                raise ValueError(f"line {number} of {str(path)!r}: {error}") from error
    return names


def leave_out(images: Images, list_file: Path) -> Images:
    """The same source without the images that a list names.

    Raises:
        ValueError: when the file is no list, names nothing in the source, or all of it.
    """
    unwanted = set(read_list(list_file))
    kept = np.fromiter((images.name(i) not in unwanted for i in range(len(images))), np.bool_, len(images))
    missing = unwanted - {images.name(int(i)) for i in np.flatnonzero(~kept)}
    if missing:
        told = (
            f"{len(missing):,} of the {len(unwanted):,} names in {str(list_file)!r} are not in the data, such as "
            f"{min(missing)!r}"
        )
        if len(missing) == len(unwanted):
            raise ValueError(f"{told} (a name there: {images.name(0)!r}); inspect this data to get its list")
        print(f"polygrain: {told}", file=sys.stderr)
    if not kept.any():
        raise ValueError(f"{str(list_file)!r} names all {len(images):,} images; none would be left")
    return SomeImages(images, np.flatnonzero(kept)) if unwanted else images


class SomeImages(Images):
    """Some images of a source, in its order, with its classes and their numbers."""

    def __init__(self, source: Images, places: NDArray[np.int64]) -> None:
        super().__init__(len(places))
        self.source = source
        self.places = places  # (n,) of each image in `source`
        self.channels = source.channels
        self.classes = source.classes
        self.left_out = source.left_out

    def name(self, i: int) -> str:
        return self.source.name(int(self.places[i]))

    def load(self, i: int) -> Tensor:
        return self.source.load(int(self.places[i]))

    def encoded(self, i: int) -> bytes | None:
        return self.source.encoded(int(self.places[i]))

    def decoded(self, data: bytes) -> Tensor:
        return self.source.decoded(data)

    def labels(self) -> NDArray[np.int64] | None:
        labels = self.source.labels()
        return None if labels is None else labels[self.places]

    def label(self, i: int) -> int | None:
        return self.source.label(int(self.places[i]))
