"""Videos with object masks in the layout of DAVIS, and folders of predicted masks; unpacked or as one tar archive."""

import hashlib
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from polygrain.data.decoding import Undecodable, decode
from polygrain.data.masks import decode_ids
from polygrain.data.tar import members

LARGEST_ID = 255
FRAMES, MASKS = "JPEGImages/480p", "Annotations/480p"
Mask = NDArray[np.uint8]  # (H, W) object ids, 0 for the background


class Files:
    """Files by their path below `root`, a folder or an uncompressed tar archive.

    Raises:
        ValueError: when there is no such folder or archive.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)
        self._members: dict[str, tuple[int, int]] | None = None  # offset, size
        if self.root.is_file():
            found = {os.fsdecode(member.name).removeprefix("./"): member for member, _ in members(self.root)}
            self._members = {name: (member.offset, member.size) for name, member in found.items()}
        elif not self.root.is_dir():
            raise ValueError(f"no folder or tar archive {str(root)!r}")

    def listed(self, folder: str) -> list[str]:
        """Names directly in a folder, sorted; hidden ones are left out."""
        if self._members is None:
            there = self.root / folder
            names = {path.name for path in there.iterdir()} if there.is_dir() else set()
        else:
            inside = (name.removeprefix(f"{folder}/") for name in self._members if name.startswith(f"{folder}/"))
            names = {name.partition("/")[0] for name in inside}
        return sorted(name for name in names if not name.startswith("."))

    def has(self, name: str) -> bool:
        return (self.root / name).is_file() if self._members is None else name in self._members

    def read(self, name: str) -> bytes:
        if self._members is None:
            return (self.root / name).read_bytes()
        offset, size = self._members[name]
        with self.root.open("rb") as file:
            file.seek(offset)
            return file.read(size)


class Video(NamedTuple):
    """One sequence."""

    name: str
    frames: tuple[str, ...]  # without suffix, in order: "00000" ...


class Davis:
    """The sequences that `ImageSets/SPLIT.txt` lists: `JPEGImages/480p/NAME/00000.jpg` and, under the same name,
    `Annotations/480p/NAME/00000.png`, whose values are object ids.

    Args:
        sequences: only these; all that are listed by default.

    Raises:
        ValueError: when a list, a sequence, a frame or a mask is missing.
    """

    def __init__(self, root: str | os.PathLike[str], split: str = "2017/val", sequences: Sequence[str] = ()) -> None:
        self.files = Files(root)
        listed = self._listed(split)
        if unknown := [name for name in sequences if name not in listed]:
            raise ValueError(f"no sequence {unknown[0]!r} in {self.files.root}; there are {', '.join(listed)}")
        self.videos = [self._video(name) for name in sequences or listed]

    def frame(self, video: Video, i: int) -> Tensor:
        """(3, H, W) uint8."""
        name = f"{FRAMES}/{video.name}/{video.frames[i]}.jpg"
        try:
            return decode(self.files.read(name))
        except Undecodable as error:
            raise ValueError(f"cannot decode frame {name!r} in {self.files.root}: {error}") from error

    def mask(self, video: Video, i: int) -> Mask:
        return read_mask(self.files, f"{MASKS}/{video.name}/{video.frames[i]}.png")

    def masks(self, video: Video) -> NDArray[np.uint8]:
        """(T, H, W) of all frames.

        Raises:
            ValueError: when they differ in size.
        """
        masks = [self.mask(video, i) for i in range(len(video.frames))]
        for frame, mask in zip(video.frames, masks, strict=True):
            check_size(f"mask {video.name}/{frame}.png", mask.shape, "the first one", masks[0].shape)
        return np.stack(masks)

    def digest(self) -> str:
        """Short text that differs where frames or masks do."""
        found = hashlib.blake2b(digest_size=16)
        for video in self.videos:
            for frame in video.frames:
                for name in (f"{FRAMES}/{video.name}/{frame}.jpg", f"{MASKS}/{video.name}/{frame}.png"):
                    found.update(name.encode() + b"\0" + hashlib.blake2b(self.files.read(name)).digest())
        return found.hexdigest()

    def _listed(self, split: str) -> list[str]:
        name = f"ImageSets/{split}.txt"
        if not self.files.has(name):
            found = [f"{year}/{file}" for year in self.files.listed("ImageSets") for file in self._lists(year)]
            told = f"it has {', '.join(found)}" if found else f"a DAVIS folder holds {FRAMES}, {MASKS} and ImageSets"
            raise ValueError(f"no {name} in {str(self.files.root)!r}; {told}")
        listed = self.files.read(name).decode().split()
        if not listed:
            raise ValueError(f"{name} in {str(self.files.root)!r} lists no sequence")
        return listed

    def _lists(self, year: str) -> list[str]:
        return [file.removesuffix(".txt") for file in self.files.listed(f"ImageSets/{year}")]

    def _video(self, name: str) -> Video:
        frames = _stems(self.files.listed(f"{FRAMES}/{name}"), ".jpg")
        masks = _stems(self.files.listed(f"{MASKS}/{name}"), ".png")
        if not frames:
            raise ValueError(f"sequence {name!r} has no frames: {FRAMES}/{name}/*.jpg in {str(self.files.root)!r}")
        if len(frames) < 3:
            raise ValueError(
                f"sequence {name!r} has {len(frames)} frames; as the first and the last do not count, 3 are needed"
            )
        if absent := sorted({*masks, *_counted(frames)} - {*frames}):
            raise ValueError(f"sequence {name!r} lacks {len(absent)} of its frames, the first is {absent[0]}.jpg")
        if absent := [frame for frame in frames if frame not in set(masks)]:
            raise ValueError(
                f"sequence {name!r}: {len(absent)} of {len(frames)} frames have no mask, the first is {absent[0]}.png"
            )
        return Video(name, tuple(frames))


def read_mask(files: Files, name: str) -> Mask:
    """Object ids of an indexed or gray PNG.

    Raises:
        ValueError: when it is something else, or an id is above 255.
    """
    ids = decode_ids(files.read(name), f"{name} in {files.root}")
    if ids.max() > LARGEST_ID:
        raise ValueError(f"mask '{name} in {files.root}' holds id {ids.max()}; ids of objects are 0 to {LARGEST_ID}")
    return ids.astype(np.uint8)


def check_size(what: str, shape: Sequence[int], other: str, wanted: Sequence[int]) -> None:
    """Raises ValueError when two heights and widths differ."""
    if tuple(shape) != tuple(wanted):
        raise ValueError(f"{what} is {shape[1]}x{shape[0]} pixels, {other} {wanted[1]}x{wanted[0]}; sizes must agree")


def palette() -> NDArray[np.uint8]:
    """(256, 3) colours of PASCAL VOC and DAVIS: three bits of the id at a time, the highest bits of each colour
    first."""
    ids = np.arange(256)
    colours = np.zeros((256, 3), np.int64)
    for level in range(8):
        bits = (ids[:, None] >> (3 * level + np.arange(3))) & 1  # (256, 3)
        colours |= bits << (7 - level)
    return colours.astype(np.uint8)


def png(mask: Mask) -> bytes:
    """A mask as an indexed PNG in the colours of DAVIS."""
    image = Image.fromarray(mask)
    image.putpalette(palette().ravel().tolist())
    file = io.BytesIO()
    image.save(file, format="PNG")
    return file.getvalue()


def _stems(names: Sequence[str], suffix: str) -> list[str]:
    return [name.removesuffix(suffix) for name in names if name.endswith(suffix)]


def _counted(frames: Sequence[str]) -> list[str]:
    """The names of all frames from the first to the last, where they are numbers."""
    if not all(frame.isdecimal() for frame in frames):
        return []
    return [str(number).zfill(len(frames[0])) for number in range(int(frames[0]), int(frames[-1]) + 1)]
