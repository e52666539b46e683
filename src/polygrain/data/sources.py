"""Whatever a person hands in as data, opened as `Images`."""

import difflib
import os
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from polygrain.data.bands import channels_first, with_alpha
from polygrain.data.decoding import Undecodable, to_pixels
from polygrain.data.folders import FolderImages
from polygrain.data.images import Images
from polygrain.data.scenes import Scenes
from polygrain.data.shards import ShardImages, expand

__all__ = ["DatasetImages", "Images", "open_images"]


def open_images(data: str | os.PathLike[str] | Dataset[Any] | Images, channels: int = 3) -> Images:
    """Opens a source of images.

    Args:
        data: a folder; a `.tar` shard, or a glob or brace list of shards; "scenes", "scenes:COUNT",
            "scenes:COUNT:SIZE" or "scenes:COUNT:SIZE:SEED" for the built-in set (a folder of that name is "./scenes");
            a map-style dataset, see `DatasetImages`; or a source that is open already.
        channels: 3 is RGB, 1 is gray, which any image can be turned into; other numbers are taken as stored, from
            files that have exactly so many (see `bands`).

    Raises:
        ValueError: when there is no such source, or no image in it.
    """
    if channels < 1:
        raise ValueError(f"channels is {channels}; it must be 1 or more, for example 3 for RGB")
    if isinstance(data, Images):
        if data.channels != channels:
            raise ValueError(f"these images were opened with {data.channels} channels, and {channels} are asked for")
        return data
    if not isinstance(data, str | os.PathLike):
        return DatasetImages(data, channels)
    images = _open_named(os.fspath(data), channels)
    images.opened_as = os.fspath(data)
    return images


def _open_named(name: str, channels: int) -> Images:
    if name.split(":")[0] == "scenes":
        if channels != 3:
            raise ValueError(
                f"the built-in scenes have 3 channels, and {channels} are asked for; give images of your own"
            )
        return _open_scenes(name)
    if Path(name).is_dir():
        return FolderImages(name, channels)
    if name.endswith(".tar"):
        if not (Path(name).exists() or any(sign in name for sign in "*?[{")):
            raise ValueError(f"no shard {name!r}{_nearest(name)}")
        return ShardImages(expand(name), channels)
    if Path(name).is_file():
        raise ValueError(f"{name!r} is a file; give a folder of images, or shards that end in .tar (uncompressed)")
    raise ValueError(f"no folder {name!r}{_nearest(name)}")


def _open_scenes(name: str) -> Scenes:
    numbers = name.split(":")[1:]
    if len(numbers) > 3 or not all(number.isdecimal() for number in numbers):
        raise ValueError(f"{name!r}: the built-in images are scenes, or scenes:COUNT:SIZE:SEED, as in scenes:4000:64:0")
    count, size, seed = [*map(int, numbers), *(4000, 64, 0)[len(numbers) :]]
    return Scenes(count, size=size, seed=seed)


def _nearest(name: str) -> str:
    """The nearest path there is, as the end of a sentence."""
    path = Path(name)
    parent = next((folder for folder in path.parents if folder.is_dir()), Path())
    missing = path.relative_to(parent).parts[0] if path.is_relative_to(parent) else path.name
    close = difflib.get_close_matches(missing, [*os.listdir(parent), "scenes"], n=1)  # noqa: PTH208
    if not close:
        return f" ({str(parent)!r} is there, {missing!r} is not in it)"
    return f"; did you mean {close[0] if close[0] == 'scenes' else str(parent / close[0])!r}?"


class DatasetImages(Images):
    """A map-style dataset as a source: each item an image, or a tuple of an image and more.

    An image is a Pillow image, or a uint8 tensor (3, H, W), (1, H, W), (H, W, 3), (H, W, 1) or (H, W); where both
    orders fit, channels come first. With `channels` other than 3, a tensor has exactly so many. The second entry of a
    tuple is the label if it is a whole number; any other (boxes, captions ...) is left alone. A dataset's own `OSError`
    (a file that cannot be read) counts as an undecodable image.

    Raises:
        ValueError: when the items are something else.
    """

    def __init__(self, dataset: Any, channels: int = 3) -> None:
        kind = type(dataset).__name__
        if isinstance(dataset, IterableDataset) or not (
            hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")
        ):
            raise ValueError(f"a {kind} cannot be read at any place; give a map-style dataset, a folder or shards")
        if not len(dataset):
            raise ValueError(f"the {kind} is empty")
        super().__init__(len(dataset))
        self.dataset, self.channels = dataset, channels
        classes = getattr(dataset, "classes", None)
        self.classes = list(map(str, classes)) if isinstance(classes, list | tuple) else None
        self._last: tuple[int, int] | None = None  # an image and its label, so that reading both costs one
        self._labels: NDArray[np.int64] | None = None
        self._labelled = self.label(self.read(0).source) is not None

    def name(self, i: int) -> str:
        return f"{type(self.dataset).__name__}[{i}]"

    def load(self, i: int) -> Tensor:
        item = self._item(i)
        image = item[0] if isinstance(item, tuple | list) and item else item
        if isinstance(image, Image.Image):
            try:
                return to_pixels(image, self.channels) if self.channels in (1, 3) else with_alpha(image, self.channels)
            except OSError as error:  # a file that Pillow opened lazily
                raise Undecodable(str(error)) from error
        if isinstance(image, Tensor) and image.dtype == torch.uint8:
            return _channels_first(image, self.name(i), self.channels)
        what = f"{image.dtype} tensor" if isinstance(image, Tensor) else type(image).__name__
        raise ValueError(
            f"{self.name(i)} is a {what}; give Pillow images or uint8 tensors: crops, scaling and normalisation are "
            "polygrain's part, so leave the dataset's own transform out"
        )

    def labels(self) -> NDArray[np.int64] | None:
        """As a rule from the `targets` of the dataset; without them every item is read, once."""
        if not self._labelled:
            return None
        if self._labels is None:
            found = _targets(self.dataset)
            if found is None:
                each = (self.label(i) for i in range(len(self)))
                found = np.fromiter((-1 if label is None else label for label in each), np.int64, len(self))
            self._labels = found
        return self._labels

    def label(self, i: int) -> int | None:
        if self._labels is not None:
            return int(self._labels[i]) if self._labels[i] >= 0 else None
        if self._last is None or self._last[0] != i:
            try:
                self._item(i)
            except Undecodable:
                return None
        return None if self._last is None or self._last[1] < 0 else self._last[1]

    def _item(self, i: int) -> Any:
        try:
            item = self.dataset[i]
        except OSError as error:
            raise Undecodable(str(error)) from error
        label = item[1] if isinstance(item, tuple | list) and len(item) > 1 else None
        if isinstance(label, Tensor) and label.numel() == 1 and not label.is_floating_point():
            label = label.item()
        self._last = (i, int(label) if isinstance(label, int | np.integer) else -1)
        return item


def _targets(dataset: Any) -> NDArray[np.int64] | None:
    """Labels without decoding an image, where the dataset keeps them as torchvision's do."""
    if getattr(dataset, "target_transform", None) is not None:
        return None
    targets = getattr(dataset, "targets", None)
    if targets is None:
        return None
    values = np.asarray(targets)
    whole = values.dtype.kind in "iu" and values.shape == (len(dataset),)
    return cast(NDArray[np.int64], values.astype(np.int64)) if whole else None


def _channels_first(image: Tensor, name: str, channels: int) -> Tensor:
    """Any of the layouts to (channels, H, W); one channel is good for three."""
    shape = tuple(image.shape)
    for there in (channels, 1) if channels == 3 else (channels,):
        try:
            axes = channels_first(shape, there)
        except Undecodable:
            continue
        image = image[None] if axes[0] < 0 else image.permute(axes)
        return image.expand(channels, -1, -1).contiguous()
    one = " or one channel" if channels in (1, 3) else ""
    raise ValueError(f"{name} has shape {shape}; wanted ({channels}, H, W), (H, W, {channels}){one}")
