"""COCO's json of boxes and instance masks, checked before anything is done with it."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

KEYS: dict[str, dict[str, type]] = {
    "images": {"id": int, "file_name": str, "height": int, "width": int},
    "categories": {"id": int, "name": str},
    "annotations": dict.fromkeys(("id", "image_id", "category_id"), int)
    | dict.fromkeys(("bbox", "area", "segmentation"), object),
}
WORDS = {int: "a whole number", str: "text"}
FARTHEST = 1e6  # px: coordinates beyond it are mistakes, and pycocotools takes memory for each pixel of an outline
SLIGHTEST = 1 / 64  # px: float32 still tells the two sides of such a box after it was mirrored, resized and cut
_BOUND = f"between -{FARTHEST:.0f} and {FARTHEST:.0f}"


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
        for image in content["images"]:
            if min(image["height"], image["width"]) < 1:
                told = f"image {image['id']} has {image['width']}x{image['height']} pixels"
                raise self._wrong(f"{told}; sides must be 1 or more")
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

    def learnable(self, annotation: Mapping[str, Any]) -> bool:
        """Whether something of an object lies inside its image: of its box, and of its mask."""
        image = self.images[annotation["image_id"]]
        for start, length, end in zip(
            annotation["bbox"][:2], annotation["bbox"][2:], (image["width"], image["height"]), strict=True
        ):
            if min(start + length, end) - max(start, 0) < SLIGHTEST:
                return False
        return _area_of(annotation["segmentation"], image["height"], image["width"]) > 0

    def empty(self) -> list[int]:
        """Objects that are not learnable; crowds never are, and are not among them."""
        every = (one for found in self.objects.values() for one in found)
        return [one["id"] for one in every if not one["iscrowd"] and not self.learnable(one)]

    def _check_entries(self, kind: str, entries: Sequence[Any], keys: Mapping[str, type]) -> None:
        seen = set()
        for i, entry in enumerate(entries):
            if not isinstance(entry, dict) or type(entry.get("id")) is not int:
                raise self._wrong(f"entry {i} of {kind} has no whole number as 'id'")
            if missing := [key for key in keys if key not in entry]:
                raise self._wrong(f"{kind} with id {entry['id']} lacks {missing[0]!r}")
            for key, wanted in keys.items():
                if wanted is not object and type(entry[key]) is not wanted:
                    told = f"{key} of {kind} with id {entry['id']} is {entry[key]!r:.40}"
                    raise self._wrong(f"{told}; it must be {WORDS[wanted]}")
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
        if not (isinstance(box, list) and len(box) == 4 and _numbers(box)):
            told = f"the bbox of annotation {name} is {box!r:.60}"
            raise self._wrong(f"{told}; it must be four numbers: x, y, width, height, {_BOUND}")
        if not _numbers([annotation["area"]], FARTHEST**2):
            raise self._wrong(f"the area of annotation {name} is {annotation['area']!r:.40}; it must be a number")
        if annotation.get("iscrowd", 0) not in (0, 1):
            raise self._wrong(f"iscrowd of annotation {name} is {annotation['iscrowd']!r:.40}; it must be 0 or 1")
        if isinstance(annotation["segmentation"], dict):
            self._check_runs(name, annotation["segmentation"], self.images[image])
        else:
            self._check_polygons(name, annotation["segmentation"])

    def _check_runs(self, name: int, runs: Mapping[str, Any], image: Mapping[str, Any]) -> None:
        size = [image["height"], image["width"]]
        if repr(runs.get("size")) != repr(size) or "counts" not in runs:
            raise self._wrong(f"the mask of annotation {name} has size {runs.get('size')}, its image has {size}")
        lengths = _run_lengths(runs["counts"])
        if lengths is None:
            told = f"the run lengths of annotation {name} are {runs['counts']!r:.40}"
            raise self._wrong(f"{told}; they must be whole numbers from 0, or COCO's text of them")
        if sum(lengths) != math.prod(size):
            told = f"{sum(lengths)} pixels, its image has {math.prod(size)}"
            raise self._wrong(f"the run lengths of annotation {name} cover {told}")

    def _check_polygons(self, name: int, polygons: Any) -> None:
        if not isinstance(polygons, list) or not polygons:
            raise self._wrong(f"the segmentation of annotation {name} is {polygons!r:.40}; it must be polygons or RLE")
        for polygon in polygons:
            if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
                told = f"{len(polygon)} numbers" if isinstance(polygon, list) else f"{polygon!r:.40}"
                raise self._wrong(
                    f"a polygon of annotation {name} has {told}; it must have x and y of three points or more"
                )
            if not _numbers(polygon):
                raise self._wrong(f"a polygon of annotation {name} holds what is no finite number {_BOUND}")

    def _wrong(self, told: str) -> ValueError:
        return ValueError(f"{str(self.path)!r}: {told}")


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


def _numbers(values: Sequence[Any], most: float = FARTHEST) -> bool:
    return all(type(value) in (int, float) and -most <= value <= most for value in values)


def _area_of(segmentation: Any, height: int, width: int) -> int:
    """Pixels of a mask."""
    if not isinstance(segmentation, list):
        return sum((_run_lengths(segmentation["counts"]) or [])[1::2])
    coding = pycocotools().mask
    return int(coding.area(coding.merge(coding.frPyObjects(segmentation, height, width))))


def _run_lengths(counts: Any) -> list[int] | None:
    """Lengths of the runs of a mask, 0 first; none where they are damaged.

    They are read here because pycocotools takes text whose runs end too early, and fills the rest with whatever is in
    memory. (Its format, `rleFrString`: five bits to a character, from 48; a sixth says that more follow, and the fifth
    of the last is the sign; from the fourth run on each is the difference to the one two before.)
    """
    if isinstance(counts, list):
        return counts if all(type(count) is int and count >= 0 for count in counts) else None
    if not isinstance(counts, str) or not all("0" <= letter <= "o" for letter in counts):
        return None
    found: list[int] = []
    value = bits = 0
    for letter in counts.encode():
        five = letter - 48
        value |= (five & 31) << bits
        bits += 5
        if five & 32:
            continue
        if five & 16:
            value -= 1 << bits
        found.append(value + found[-2] if len(found) > 2 else value)
        value = bits = 0
    return found if not bits and min(found, default=0) >= 0 else None
