"""Images of a folder, nested as deep as one likes."""

import hashlib
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from polygrain.data.images import Images, LeftOut, Names
from polygrain.data.reading import read_file

SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm",
)  # fmt: skip
FOREIGN = (  # images and films that we do not read
    b".svg", b".heic", b".heif", b".avif", b".pdf", b".jp2", b".jxl", b".psd", b".ai", b".eps", b".exr", b".hdr",
    b".ico", b".tga", b".dng", b".cr2", b".cr3", b".nef", b".arw", b".orf", b".rw2", b".raw", b".dcm", b".mp4", b".mov",
)  # fmt: skip
HIDDEN, APPLE_DOUBLE, HIDDEN_FOLDER = "hidden files", "AppleDouble files (._*)", "hidden folders"
QUIET = (HIDDEN, APPLE_DOUBLE, HIDDEN_FOLDER, "other files")


def suffixes(channels: int) -> tuple[str, ...]:
    """Of the files that hold images of so many channels; a `.npy` beside photographs is rarely one of them."""
    return SUFFIXES if channels == 3 else (*SUFFIXES, ".npy")


class FolderImages(Images):
    """Every image file below `root`, in the order of its path; hidden files and folders are left out.

    Where at least two folders lie directly in `root` and hold all the images, their names are the classes, numbered in
    the order of the names. Links are followed, no folder is entered twice. What is left out is counted in `left_out`,
    and told in one line on stderr unless it is only what nobody would miss (hidden files and files of other kinds).

    Raises:
        ValueError: when there is no image.
    """

    def __init__(self, root: str | os.PathLike[str], channels: int = 3) -> None:
        self.root, self.channels = Path(root), channels
        wanted = suffixes(channels)
        left_out = LeftOut()
        others: Counter[str] = Counter()  # by suffix
        top: list[tuple[str, int]] = []  # first-level folder ("" for root itself) and number of its images
        self._names = Names(_chunks(os.fsencode(root), wanted, top, left_out, others))
        if not len(self._names):
            raise ValueError(_no_images(self.root, wanted, others))
        super().__init__(len(self._names))
        self.left_out = left_out
        if left_out.counts.keys() - set(QUIET):
            print(f"polygrain: left out of {str(root)!r}: {left_out.line()}", file=sys.stderr)
        self._labels: NDArray[np.int32] | None = None
        if len(top) > 1 and top[0][0]:
            self.classes = [folder for folder, _ in top]
            self._labels = np.repeat(np.arange(len(top), dtype=np.int32), [count for _, count in top])
        elif len(top) == 1 and top[0][0]:
            self.only_folder = top[0][0]

    def name(self, i: int) -> str:
        return os.fsdecode(self._names[i])

    def load(self, i: int) -> Tensor:
        return self.decoded(self.encoded(i))

    def encoded(self, i: int) -> bytes:
        return read_file(os.path.join(os.fsencode(self.root), self._names[i]))  # noqa: PTH118 Path knows no bytes

    def fingerprint(self) -> str:
        return hashlib.blake2b(b"folder" + self._names.digest(), digest_size=16).hexdigest()

    def content(self) -> str:
        digest = hashlib.blake2b(super().content().encode(), digest_size=16)
        for i in range(len(self)):
            digest.update(b"%d;" % self._stat(i).st_size)
        return digest.hexdigest()

    def state(self) -> str:
        digest = hashlib.blake2b(self.fingerprint().encode(), digest_size=16)
        for i in range(len(self)):
            state = self._stat(i)
            digest.update(b"%d %d;" % (state.st_size, state.st_mtime_ns))
        return digest.hexdigest()

    def _stat(self, i: int) -> os.stat_result:
        return os.stat(os.path.join(os.fsencode(self.root), self._names[i]))  # noqa: PTH116, PTH118 Path knows no bytes

    def labels(self) -> NDArray[np.int64] | None:
        return None if self._labels is None else self._labels.astype(np.int64)

    def label(self, i: int) -> int | None:
        return None if self._labels is None else int(self._labels[i].item())

    @property
    def nbytes(self) -> int:
        """Bytes of the index, which every worker sees."""
        return self._names.nbytes + (0 if self._labels is None else self._labels.nbytes) + self._broken.nbytes


def _chunks(
    root: bytes, wanted: tuple[str, ...], top: list[tuple[str, int]], left_out: LeftOut, others: Counter[str]
) -> Iterator[list[bytes]]:
    """Names of one folder after another, relative to `root`; fills `top`, and counts what is left out."""
    ends = tuple(os.fsencode(suffix) for suffix in wanted)
    entered: set[tuple[int, int]] = set()
    folders = [b""]  # to visit, next one last
    while folders:
        folder = folders.pop()
        files, inner = _list(root, folder, ends, entered, left_out, others)
        folders += reversed(inner)
        if files:
            first = os.fsdecode(folder.partition(b"/")[0])
            if top and top[-1][0] == first:
                top[-1] = (first, top[-1][1] + len(files))
            else:
                top.append((first, len(files)))
            yield files


def _list(
    root: bytes,
    folder: bytes,
    ends: tuple[bytes, ...],
    entered: set[tuple[int, int]],
    left_out: LeftOut,
    others: Counter[str],
) -> tuple[list[bytes], list[bytes]]:
    """Image files and folders in one folder, sorted, relative to `root`; nothing where it was entered before."""
    path = root + b"/" + folder
    prefix = folder + b"/" if folder else b""
    files: list[bytes] = []
    inner: list[bytes] = []
    try:
        state = os.stat(path)  # noqa: PTH116 Path knows no bytes
        if (state.st_dev, state.st_ino) in entered:
            left_out.add("folders that links lead to once more", folder)
            return [], []
        entered.add((state.st_dev, state.st_ino))
        with os.scandir(path) as entries:
            for entry in entries:
                try:
                    if entry.name.startswith(b"."):
                        left_out.add(_hidden(entry), prefix + entry.name)
                    elif entry.is_dir():
                        inner.append(prefix + entry.name)
                    elif entry.name.lower().endswith(ends) and entry.is_file():
                        files.append(prefix + entry.name)
                    else:
                        left_out.add(_other(entry, ends), prefix + entry.name)
                        others[os.fsdecode(os.path.splitext(entry.name)[1].lower())] += 1  # noqa: PTH122
                except OSError as error:  # of this entry: a link to itself, a link into a closed folder
                    left_out.add(f"unreadable: {error.strerror} (errno {error.errno})", prefix + entry.name)
    except OSError as error:
        left_out.add(f"unreadable folders: {error.strerror} (errno {error.errno})", folder or b".")
    return sorted(files), sorted(inner)


def _hidden(entry: os.DirEntry[bytes]) -> str:
    if entry.is_dir(follow_symlinks=False):
        return HIDDEN_FOLDER
    return APPLE_DOUBLE if entry.name.startswith(b"._") else HIDDEN


def _other(entry: os.DirEntry[bytes], ends: tuple[bytes, ...]) -> str:
    """Why an entry that is no folder is no image of ours."""
    if entry.name.lower().endswith(FOREIGN):
        return f"unsupported {os.fsdecode(os.path.splitext(entry.name)[1].lower())}"  # noqa: PTH122
    if not entry.name.lower().endswith(ends):
        return "other files"
    return "dangling links" if entry.is_symlink() else "pipes, sockets or devices"


def _no_images(root: Path, wanted: tuple[str, ...], others: Counter[str]) -> str:
    message = f"no image in {str(root)!r} (looked for {', '.join(wanted)} in it and in its folders)"
    if others[".tar"]:
        return message + f"; it holds {others['.tar']} .tar: for shards give {str(root / '*.tar')!r}"
    if others:
        found = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in others.most_common(4))
        return message + f"; it holds other files: {found}"
    return message
