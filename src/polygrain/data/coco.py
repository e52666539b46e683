"""Images with boxes and instance masks in COCO's json."""

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Transpose
from torch import Tensor

from polygrain.data.davis import Files
from polygrain.data.decoding import decode
from polygrain.data.opening import Undecodable, open_picture, turn_of

KEYS = {
    "images": ("id", "file_name", "height", "width"),
    "categories": ("id", "name"),
    "annotations": ("id", "image_id", "category_id", "bbox", "area", "segmentation"),
}
SWAPPING = (Transpose.ROTATE_90, Transpose.ROTATE_270, Transpose.TRANSPOSE, Transpose.TRANSVERSE)
FOLDER = "images/"  # where images lie that are not at the root


class Truth(NamedTuple):
    """The objects of one image, without crowds."""

    boxes: Tensor  # (n, 4) left, top, right, bottom, in pixels
    labels: Tensor  # (n,) long, 1 to the number of categories
    masks: Tensor  # (n, H, W) uint8


class Annotations:
    """A COCO json of instances, checked.

    Attributes:
        images: entries of the json, by image id.
        categories: ids, ascending: category i has label i + 1, and 0 is the background.
        objects: annotations of each image, crowds among them; `iscrowd` is 0 where the json does not say.

    Raises:
        ValueError: names the file and what is wrong with the first broken entry.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        content = _read(self.path)
        for kind, keys in KEYS.items():
            self._check_entries(kind, content[kind], keys)
        self.images: dict[int, dict[str, Any]] = {image["id"]: image for image in content["images"]}
        self.names: dict[int, str] = {category["id"]: category["name"] for category in content["categories"]}
        self.categories = tuple(sorted(self.names))
        self.labels = {category: i for i, category in enumerate(self.categories, start=1)}
        self.objects: dict[int, list[dict[str, Any]]] = {image: [] for image in self.images}
        for annotation in content["annotations"]:
            self._check_object(annotation)
            self.objects[annotation["image_id"]].append({"iscrowd": 0, **annotation})

    def category(self, label: int) -> int:
        """The id that the json knows a label by."""
        return self.categories[label - 1]

    def empty_boxes(self) -> list[int]:
        """Annotations whose box has no area: nothing can be learned of them."""
        every = (one for found in self.objects.values() for one in found)
        return [one["id"] for one in every if min(one["bbox"][2:]) <= 0]

    def _check_entries(self, kind: str, entries: Sequence[Any], keys: Sequence[str]) -> None:
        seen = set()
        for i, entry in enumerate(entries):
            if not isinstance(entry, dict) or not isinstance(entry.get("id"), int):
                raise self._wrong(f"entry {i} of {kind} has no whole number as 'id'")
            if missing := [key for key in keys if key not in entry]:
                raise self._wrong(f"{kind} with id {entry['id']} lacks {missing[0]!r}")
            if entry["id"] in seen:
                raise self._wrong(f"id {entry['id']} occurs twice in {kind}; ids must differ")
            seen.add(entry["id"])
        if not entries and kind != "annotations":
            raise self._wrong(f"its {kind} are empty")

    def _check_object(self, annotation: Mapping[str, Any]) -> None:
        name, image, category = (annotation[key] for key in ("id", "image_id", "category_id"))
        if image not in self.images:
            raise self._wrong(f"annotation {name} is of image {image}, which its images do not list")
        if category not in self.names:
            raise self._wrong(f"annotation {name} is of category {category}, which its categories do not list")
        box = annotation["bbox"]
        if not (isinstance(box, list) and len(box) == 4 and _finite(box)):
            raise self._wrong(f"the bbox of annotation {name} is {box}; it must be four numbers: x, y, width, height")
        if not _finite([annotation["area"]]):
            raise self._wrong(f"the area of annotation {name} is {annotation['area']}; it must be a number")
        shape = annotation["segmentation"]
        if isinstance(shape, dict):
            size = [self.images[image]["height"], self.images[image]["width"]]
            if shape.get("size") != size or "counts" not in shape:
                raise self._wrong(f"the mask of annotation {name} has size {shape.get('size')}, its image has {size}")
            if isinstance(shape["counts"], list) and sum(shape["counts"]) != math.prod(size):
                told = f"{sum(shape['counts'])} pixels, its image has {math.prod(size)}"
                raise self._wrong(f"the run lengths of annotation {name} cover {told}")
            return
        if not isinstance(shape, list) or not shape:
            raise self._wrong(f"the segmentation of annotation {name} is {shape!r:.40}; it must be polygons or RLE")
        for polygon in shape:
            if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
                told = f"{len(polygon)} numbers" if isinstance(polygon, list) else f"{polygon!r:.40}"
                raise self._wrong(
                    f"a polygon of annotation {name} has {told}; it must have x and y of three points or more"
                )
            if not _finite(polygon):
                raise self._wrong(f"a polygon of annotation {name} holds what is no finite number")

    def _wrong(self, told: str) -> ValueError:
        return ValueError(f"{str(self.path)!r}: {told}")


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
        """The objects of one image; crowds, and boxes without area, are left out."""
        image = self.ids[position]
        entry = self.annotations.images[image]
        size = entry["height"], entry["width"]
        found = [one for one in self.annotations.objects[image] if not one["iscrowd"] and min(one["bbox"][2:]) > 0]
        boxes = torch.tensor([one["bbox"] for one in found], dtype=torch.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        masks = [torch.from_numpy(mask_of(one["segmentation"], *size)) for one in found]
        labels = torch.tensor([self.annotations.labels[one["category_id"]] for one in found], dtype=torch.long)
        return Truth(boxes, labels, torch.stack(masks) if masks else torch.zeros(0, *size, dtype=torch.uint8))

    def digest(self) -> str:
        """Short text that differs where images or annotations do."""
        found = hashlib.blake2b(self.annotations.path.read_bytes(), digest_size=16)
        for path in self._paths:
            found.update(path.encode() + b"\0" + hashlib.blake2b(self.files.read(path)).digest())
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


def mask_of(segmentation: Any, height: int, width: int) -> NDArray[np.uint8]:
    """(H, W), 1 inside: polygons, or run lengths, compressed or not."""
    coding = pycocotools().mask
    if isinstance(segmentation, list):
        runs = coding.merge(coding.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation["counts"], list):
        runs = coding.frPyObjects(segmentation, height, width)
    else:
        runs = segmentation
    return np.asarray(coding.decode(runs), dtype=np.uint8)


def pycocotools() -> Any:
    """The package of COCO's authors.

    Raises:
        ValueError: when it is not installed.
    """
    try:
        import pycocotools
        import pycocotools.coco
        import pycocotools.cocoeval
        import pycocotools.mask
    except ImportError as error:
        raise ValueError("COCO's masks and AP need pycocotools: pip install 'polygrain[detection]'") from error
    return pycocotools


def _read(path: Path) -> dict[str, list[Any]]:
    """The lists of a json file that has those of COCO."""
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise ValueError(f"cannot read {str(path)!r}: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"{str(path)!r} is no json: {error}") from error
    found = content if isinstance(content, dict) else {}
    if missing := [kind for kind in KEYS if not isinstance(found.get(kind), list)]:
        raise ValueError(f"{str(path)!r} is no COCO json of instances: it has no list of {', '.join(missing)}")
    return found


def _finite(numbers: Sequence[Any]) -> bool:
    return all(isinstance(number, int | float) and math.isfinite(number) for number in numbers)
