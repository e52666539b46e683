"""Images of a folder, nested as deep as one likes."""

import errno
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from polygrain.data.decoding import Undecodable, decode
from polygrain.data.images import Images, Names

SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm",
)  # fmt: skip
SUFFIXES_BYTES = tuple(suffix.encode() for suffix in SUFFIXES)
OURS_TO_MEND = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)  # the process is short of something; the file is fine


class FolderImages(Images):
    """Every image file below `root`, in the order of its path; hidden files and folders are left out.

    Where at least two folders lie directly in `root` and hold all the images, their names are the classes, numbered in
    the order of the names. Links are followed, no folder is entered twice.

    Raises:
        ValueError: when there is no image.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)
        others: Counter[str] = Counter()
        top: list[tuple[str, int]] = []  # first-level folder ("" for root itself) and number of its images
        self._names = Names(_chunks(os.fsencode(root), top, others))
        if not len(self._names):
            raise ValueError(_no_images(self.root, others))
        super().__init__(len(self._names))
        self._labels: NDArray[np.int32] | None = None
        if len(top) > 1 and top[0][0]:
            self.classes = [folder for folder, _ in top]
            self._labels = np.repeat(np.arange(len(top), dtype=np.int32), [count for _, count in top])

    def name(self, i: int) -> str:
        return os.fsdecode(self._names[i])

    def load(self, i: int) -> Tensor:
        path = os.path.join(os.fsencode(self.root), self._names[i])  # noqa: PTH118 Path knows no bytes
        try:
            with open(path, "rb") as file:  # noqa: PTH123
                data = file.read()
        except OSError as error:
            if error.errno in OURS_TO_MEND:
                raise
            raise Undecodable(error.strerror or str(error)) from error
        return decode(data)

    def labels(self) -> NDArray[np.int64] | None:
        return None if self._labels is None else self._labels.astype(np.int64)

    def label(self, i: int) -> int | None:
        return None if self._labels is None else int(self._labels[i].item())

    @property
    def nbytes(self) -> int:
        """Bytes of the index, which every worker sees."""
        return self._names.nbytes + (0 if self._labels is None else self._labels.nbytes) + self._broken.nbytes


def _chunks(root: bytes, top: list[tuple[str, int]], others: Counter[str]) -> Iterator[list[bytes]]:
    """Names of one folder after another, relative to `root`; fills `top` and counts `others`, files left out."""
    entered: set[tuple[int, int]] = set()
    folders = [b""]  # to visit, next one last
    while folders:
        folder = folders.pop()
        files, inner = _list(root, folder, entered, others)
        folders += reversed(inner)
        if files:
            first = os.fsdecode(folder.partition(b"/")[0])
            if top and top[-1][0] == first:
                top[-1] = (first, top[-1][1] + len(files))
            else:
                top.append((first, len(files)))
            yield files


def _list(
    root: bytes, folder: bytes, entered: set[tuple[int, int]], others: Counter[str]
) -> tuple[list[bytes], list[bytes]]:
    """Image files and folders in one folder, sorted, relative to `root`; nothing where it was entered before."""
    path = root + b"/" + folder
    prefix = folder + b"/" if folder else b""
    files: list[bytes] = []
    inner: list[bytes] = []
    try:
        state = os.stat(path)  # noqa: PTH116 Path knows no bytes
        if (state.st_dev, state.st_ino) in entered:
            return [], []
        entered.add((state.st_dev, state.st_ino))
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.name.startswith(b"."):
                    continue
                if entry.is_dir():
                    inner.append(prefix + entry.name)
                elif entry.name.lower().endswith(SUFFIXES_BYTES) and entry.is_file():
                    files.append(prefix + entry.name)
                else:
                    others[os.fsdecode(os.path.splitext(entry.name)[1].lower())] += 1  # noqa: PTH122
    except OSError as error:
        print(
            f"polygrain: cannot list {os.fsdecode(path)!r}: {error.strerror}; its images are left out", file=sys.stderr
        )
    return sorted(files), sorted(inner)


def _no_images(root: Path, others: Counter[str]) -> str:
    message = f"no image in {str(root)!r} (looked for {', '.join(SUFFIXES)} in it and in its folders)"
    if others[".tar"]:
        return message + f"; it holds {others['.tar']} .tar: for shards give {str(root / '*.tar')!r}"
    if others:
        found = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in others.most_common(4))
        return message + f"; it holds other files: {found}"
    return message
