"""Images with boxes and instance masks in COCO's json."""

import hashlib
import os
from collections.abc import Mapping
from functools import cached_property
from typing import Any, NamedTuple

import torch
from PIL.Image import Transpose
from torch import Tensor

from polygrain.data.coco_json import Annotations, mask_of
from polygrain.data.davis import Files
from polygrain.data.decoding import decode
from polygrain.data.opening import Undecodable, open_picture, turn_of

SWAPPING = (Transpose.ROTATE_90, Transpose.ROTATE_270, Transpose.TRANSPOSE, Transpose.TRANSVERSE)
FOLDER = "images/"  # where images lie that are not at the root


class Truth(NamedTuple):
    """The objects of one image, without crowds."""

    boxes: Tensor  # (n, 4) left, top, right, bottom, in pixels
    labels: Tensor  # (n,) long, 1 to the number of categories
    masks: Tensor  # (n, H, W) uint8


class CocoImages:
    """Images of a folder or tar archive, with what a COCO json says of them.

    Args:
        images: each lies under its `file_name`, at the root or in `images/`.

    Raises:
        ValueError: when one is missing, or see `Annotations`.
    """

    def __init__(self, images: str | os.PathLike[str], annotations: str | os.PathLike[str]) -> None:
        self.files = Files(images)
        self.annotations = Annotations(annotations)
        self.ids = sorted(self.annotations.images)
        self._paths = [self._path(self.annotations.images[image]["file_name"]) for image in self.ids]

    def __len__(self) -> int:
        return len(self.ids)

    def pixels(self, position: int) -> Tensor:
        """(3, H, W) uint8.

        Raises:
            ValueError: when the image cannot be decoded, or has another size than the json says.
        """
        entry, path = self.annotations.images[self.ids[position]], self._paths[position]
        try:
            pixels = decode(self.files.read(path))
        except Undecodable as error:
            raise ValueError(f"{path} in {str(self.files.root)!r} cannot be decoded: {error}") from error
        self._check_size(entry, (pixels.shape[1], pixels.shape[2]), path)
        return pixels

    def check_headers(self) -> None:
        """Looks at the header of every image, so that a long training does not end at the last one.

        Raises:
            ValueError: see `pixels`.
        """
        for image, path in zip(self.ids, self._paths, strict=True):
            try:
                with open_picture(self.files.read(path)) as picture:
                    wide, high = picture.size
                    turned = turn_of(picture) in SWAPPING
            except Undecodable as error:
                raise ValueError(f"{path} in {str(self.files.root)!r} cannot be decoded: {error}") from error
            self._check_size(self.annotations.images[image], (wide, high) if turned else (high, wide), path)

    def truth(self, position: int) -> Truth:
        """The objects of one image; crowds, and what is not learnable, are left out."""
        image = self.ids[position]
        entry = self.annotations.images[image]
        size = entry["height"], entry["width"]
        of_image = self.annotations.objects[image]
        found = [one for one in of_image if not one["iscrowd"] and self.annotations.learnable(one)]
        boxes = torch.tensor([one["bbox"] for one in found], dtype=torch.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        masks = [torch.from_numpy(mask_of(one["segmentation"], *size)) for one in found]
        labels = torch.tensor([self.annotations.labels[one["category_id"]] for one in found], dtype=torch.long)
        return Truth(boxes, labels, torch.stack(masks) if masks else torch.zeros(0, *size, dtype=torch.uint8))

    @cached_property
    def digests(self) -> list[bytes]:
        """Of the files of all images."""
        return [hashlib.blake2b(self.files.read(path)).digest() for path in self._paths]

    def digest(self) -> str:
        """Short text that differs where images or annotations do."""
        found = hashlib.blake2b(self.annotations.path.read_bytes(), digest_size=16)
        for path, digest in zip(self._paths, self.digests, strict=True):
            found.update(path.encode() + b"\0" + digest)
        return found.hexdigest()

    def _check_size(self, entry: Mapping[str, Any], size: tuple[int, int], path: str) -> None:
        if size != (entry["height"], entry["width"]):
            raise ValueError(
                f"{path} is {size[1]}x{size[0]} pixels, {str(self.annotations.path)!r} says "
                f"{entry['width']}x{entry['height']}; they must agree"
            )

    def _path(self, name: str) -> str:
        for path in (name, FOLDER + name):
            if self.files.has(path):
                return path
        raise ValueError(f"no {name} in {str(self.files.root)!r}, at its root or in {FOLDER}, though the json lists it")
