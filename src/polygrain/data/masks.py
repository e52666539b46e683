"""Images with a mask of class ids each: what segmentation is trained and measured on.

A folder or an archive holds `images/` and `masks/` with files of the same names: `images/a/b.jpg` goes with
`masks/a/b.png`. The folders may bear the names of Pascal VOC (`JPEGImages`, `SegmentationClass`) or ADE20K (`images`,
`annotations`). A `classes.json` beside it may name the classes and the id that does not count.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from polygrain.data.decoding import Undecodable
from polygrain.data.images import Images
from polygrain.data.opening import format_of, open_picture, quiet
from polygrain.data.scenes import MASK_CLASSES, Scenes
from polygrain.data.shards import ShardImages
from polygrain.data.sources import open_images

IMAGES, MASKS = ("images", "JPEGImages"), ("masks", "annotations", "SegmentationClass")
LARGEST_ID = 2**16 - 1


class Entry(NamedTuple):
    """One image and its mask, by their places in a source."""

    source: Images
    name: str  # without folder and suffix
    image: int
    mask: int | None


class ClassNames(NamedTuple):
    """What a `classes.json` says."""

    names: tuple[str, ...] | None  # by id
    ignore_index: int | None


class Found(NamedTuple):
    """What a source holds."""

    entries: dict[str, Entry]  # by name
    lone: dict[str, str]  # masks without an image, by name
    classes: ClassNames


class Stored(NamedTuple):
    """What a file tells of its image without being decoded."""

    size: tuple[int, int] | None  # height, width of a photograph, before it is turned upright; None of other images
    digest: bytes  # of the file, or of the pixels in a source without files


class MaskedImages:
    """A finite, ordered set of images with masks.

    Args:
        lone: masks beside them that have no image.

    Raises:
        ValueError: when an image has no mask, or there is none.
    """

    def __init__(self, entries: Sequence[Entry], classes: ClassNames, where: str, lone: Iterable[str] = ()) -> None:
        missing = [entry for entry in entries if entry.mask is None]
        if missing:
            first = missing[0].source.name(missing[0].image)
            raise ValueError(
                f"{len(missing)} of {len(entries)} images in {where!r} have no mask, such as {first!r}: "
                f"wanted {MASKS[0]}/{missing[0].name}.png"
            )
        if not entries:
            raise ValueError(f"no image with a mask in {where!r}")
        self.entries, self.classes, self.where, self.lone = entries, classes, where, tuple(lone)

    def __len__(self) -> int:
        return len(self.entries)

    def take(self, rows: Iterable[int]) -> "MaskedImages":
        """Some of them."""
        return MaskedImages([self.entries[i] for i in rows], self.classes, self.where)

    def name(self, i: int) -> str:
        return self.entries[i].source.name(self.entries[i].image)

    def image(self, i: int) -> Tensor:
        """Pixels, uint8 (C, H, W).

        Raises:
            ValueError: when the file cannot be decoded.
        """
        try:
            return self.entries[i].source.load(self.entries[i].image)
        except Undecodable as error:
            raise ValueError(f"cannot decode image {self.name(i)!r}: {error}") from error

    def ids(self, i: int) -> NDArray[np.uint16]:
        """The mask (H, W) as it is stored.

        Raises:
            ValueError: when it holds no ids.
        """
        source, _, image, mask = self.entries[i]
        if isinstance(source, Scenes):
            return source.mask(image).astype(np.uint16)
        assert mask is not None
        return decode_ids(source.encoded(mask) or b"", source.name(mask))

    def stored(self, i: int) -> Stored:
        """Raises ValueError when the file cannot be read, or is no picture."""
        source = self.entries[i].source
        try:
            data = source.encoded(self.entries[i].image)
            content = self.image(i).numpy().tobytes() if data is None else data
            digest = hashlib.blake2b(content, digest_size=16).digest()
            if data is None or source.channels not in (1, 3) or format_of(data) == "NumPy":
                return Stored(None, digest)
            with quiet(format_of(data)), open_picture(data) as picture:
                return Stored((picture.size[1], picture.size[0]), digest)
        except (Undecodable, OSError, SyntaxError) as error:
            raise ValueError(f"cannot decode image {self.name(i)!r}: {error}") from error


def decode_ids(data: bytes, name: str) -> NDArray[np.uint16]:
    """Class ids (H, W) of a mask: 8-bit palette (the place in it), gray of up to 16 bits, or black and white.

    Raises:
        ValueError: when it holds colours, is compressed with losses, or cannot be decoded.
    """
    kind = format_of(data)
    if kind in ("JPEG", "WebP"):
        raise ValueError(f"mask {name!r} is a {kind}, whose compression changes ids; store masks as PNG")
    try:
        with quiet(kind), open_picture(data) as picture:
            picture.load()
            mode, values = picture.mode, np.asarray(picture)
    except (Undecodable, OSError, SyntaxError) as error:
        raise ValueError(f"cannot decode mask {name!r}: {error}") from error
    if mode not in ("1", "L", "P", "I") and not mode.startswith("I;16"):
        raise ValueError(
            f"mask {name!r} holds colours (mode {mode}); wanted class ids, in 8-bit gray or as places in a palette"
        )
    if kind == "PNG" and mode == "L" and data[24] in (2, 4):  # Pillow stretches gray of few bits to 0..255
        values = values // {2: 85, 4: 17}[data[24]]
    if values.min() < 0 or values.max() > LARGEST_ID:
        raise ValueError(f"mask {name!r} holds {values.min()} to {values.max()}; ids are 0 to {LARGEST_ID}")
    return values.astype(np.uint16)


def open_masked(data: str | os.PathLike[str] | MaskedImages, channels: int = 3) -> MaskedImages:
    """Opens images with masks.

    Args:
        data: a folder or `.tar` archives (see above), "scenes:COUNT:SIZE:SEED" for the built-in set, or a set that is
            open already.

    Raises:
        ValueError: when there is no such source, it has not both folders, or an image has no mask.
    """
    if isinstance(data, MaskedImages):
        return data
    found = index(data, channels)
    return MaskedImages(list(found.entries.values()), found.classes, os.fspath(data), found.lone.values())


def index(data: str | os.PathLike[str], channels: int = 3) -> Found:
    """Images of a source by name, with their masks as far as they have one, and what is known of the classes.

    Raises:
        ValueError: when it has not both folders, they have no name in common, or two images share one.
    """
    if not isinstance(data, str | os.PathLike):
        raise ValueError(f"a {type(data).__name__} has no masks; give a folder or a .tar with images/ and masks/")
    source = open_images(data, channels)
    if isinstance(source, Scenes):
        scenes = {source.name(i): Entry(source, source.name(i), i, i) for i in range(len(source))}
        return Found(scenes, {}, ClassNames(MASK_CLASSES, None))
    images: dict[str, int] = {}
    masks: dict[str, int] = {}
    for i in range(len(source)):
        kind, name = _place(_member(source, i))
        if kind is not None:
            places = images if kind in IMAGES else masks
            if name in places:
                raise ValueError(f"{source.name(places[name])!r} and {source.name(i)!r} share one name; rename one")
            places[name] = i
    where = os.fspath(data)
    for places, folders in ((images, IMAGES), (masks, MASKS)):
        if not places:
            raise ValueError(f"no {folders[0]}/ in {where!r}; wanted images/NAME.jpg and masks/NAME.png (class ids)")
    if not images.keys() & masks.keys():
        raise ValueError(
            f"images and masks in {where!r} have no name in common: there are {next(iter(images))!r} "
            f"and {next(iter(masks))!r}"
        )
    return Found(
        {name: Entry(source, name, i, masks.get(name)) for name, i in images.items()},
        {name: source.name(i) for name, i in masks.items() if name not in images},
        class_names(Path(where)),
    )


def class_names(data: Path) -> ClassNames:
    """What the `classes.json` in a folder, or beside an archive, says: a list of names, or {"classes": [...],
    "ignore_index": 11}; nothing where there is none.

    Raises:
        ValueError: when it says something else.
    """
    file = (data if data.is_dir() else data.parent) / "classes.json"
    if not file.is_file():
        return ClassNames(None, None)
    told = read_json(file)
    names, ignored = (told.get("classes"), told.get("ignore_index")) if isinstance(told, dict) else (told, None)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f'{str(file)!r} has no list of names; wanted ["sky", ...] or {{"classes": ["sky", ...]}}')
    if not (ignored is None or isinstance(ignored, int)):
        raise ValueError(f"ignore_index in {str(file)!r} is {ignored!r}; it must be a whole number")
    return ClassNames(tuple(names), ignored)


def read_json(file: Path) -> Any:
    """Raises ValueError, which names the file, when it cannot be read or holds no json."""
    try:
        return json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read {str(file)!r}: {error}") from error


def _member(source: Images, i: int) -> str:
    name = source.name(i)
    if isinstance(source, ShardImages):
        return next(name.removeprefix(f"{shard}:") for shard in source.shards if name.startswith(f"{shard}:"))
    return name


def _place(path: str) -> tuple[str | None, str]:
    """Which of the folders a file lies in, and its name without that folder and without suffix."""
    parts = path.split("/")
    at = next((n for n, part in enumerate(parts[:-1]) if part in IMAGES + MASKS), None)
    if at is None:
        return None, path
    return parts[at], os.path.splitext("/".join(parts[:at] + parts[at + 1 :]))[0]  # noqa: PTH122 a member is no path
