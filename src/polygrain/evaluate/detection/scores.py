"""COCO's average precision, by the package of COCO's authors."""

import contextlib
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from polygrain.data.coco_json import Annotations, pycocotools
from polygrain.evaluate.detection.intervals import ap_interval
from polygrain.evaluate.metrics import Scores

METRICS = (
    *("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"),
    *("AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large"),
)
KINDS = {"boxes": "bbox", "masks": "segm"}  # what is compared, and pycocotools' word for it


def coco_scores(
    annotations: Annotations, detections: Sequence[Mapping[str, Any]], *, seed: int = 0
) -> dict[str, Scores]:
    """All twelve figures of COCO for boxes and for masks; a figure is missing where there is no object of that size.

    The first has its 95 % interval from 200 bootstrap resamples of the images.

    Args:
        detections: as COCO's result files have them: `image_id`, `category_id`, `score`, `bbox` (x, y, width, height),
            `segmentation` (run lengths). They are small, medium or large by the area of what is compared.
    """
    scores = {}
    for kind, judge in judged(annotations, detections).items():
        with contextlib.redirect_stdout(io.StringIO()):  # it prints a table
            judge.summarize()
        found = zip(METRICS, judge.stats.tolist(), strict=True)
        scores[kind] = {name: value for name, value in found if value >= 0}  # -1 where there is nothing to find
        if "AP" in scores[kind]:
            low, high = ap_interval(judge, seed=seed)
            scores[kind] |= {"AP_low": low, "AP_high": high}
    return scores


def judged(annotations: Annotations, detections: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """pycocotools' judges of boxes and of masks, who have matched detections and objects."""
    package = pycocotools()
    runs = [_runs(found["segmentation"]) for found in detections]
    areas = {
        "boxes": [found["bbox"][2] * found["bbox"][3] for found in detections],
        "masks": [int(package.mask.area(run)) for run in runs],  # a list of many overflows there
    }
    judges = {}
    for kind, word in KINDS.items():
        entries = [
            {**found, "id": i, "iscrowd": 0, "area": area, "segmentation": run}
            for i, (found, run, area) in enumerate(zip(detections, runs, areas[kind], strict=True), start=1)
        ]
        with contextlib.redirect_stdout(io.StringIO()):  # it tells of its progress
            judge = package.cocoeval.COCOeval(
                _coco(annotations, _truth(annotations)), _coco(annotations, entries), word
            )
            judge.evaluate()
            judge.accumulate()
        judges[kind] = judge
    return judges


def results(annotations: Annotations, image: int, predicted: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    """What a detector found in one image, as COCO's result files have it.

    Args:
        predicted: boxes (n, 4) left, top, right, bottom, in pixels of the original image; labels (n,) from 1; scores
            (n,); masks (n, 1, H, W) probabilities.
    """
    coding = pycocotools().mask
    boxes = predicted["boxes"].clone()
    boxes[:, 2:] -= boxes[:, :2]
    masks = (predicted["masks"][:, 0] >= 0.5).cpu().numpy().astype(np.uint8)
    return [
        {
            "image_id": image,
            "category_id": annotations.category(label),
            "score": score,
            "bbox": box,
            "segmentation": coding.encode(np.asfortranarray(mask)),
        }
        for box, label, score, mask in zip(
            boxes.tolist(), predicted["labels"].tolist(), predicted["scores"].tolist(), masks, strict=True
        )
    ]


def _truth(annotations: Annotations) -> list[dict[str, Any]]:
    """All annotations, numbered from 1: pycocotools takes an object of id 0 for not found."""
    every = (one for found in annotations.objects.values() for one in found)
    return [{**one, "id": i} for i, one in enumerate(every, start=1)]


def _coco(annotations: Annotations, entries: Iterable[dict[str, Any]]) -> Any:
    coco = pycocotools().coco.COCO()
    categories = [{"id": category, "name": name} for category, name in annotations.names.items()]
    coco.dataset = {"images": [*annotations.images.values()], "categories": categories, "annotations": [*entries]}
    coco.createIndex()
    return coco


def _runs(segmentation: Mapping[str, Any]) -> Any:
    if isinstance(segmentation["counts"], list):
        return pycocotools().mask.frPyObjects(segmentation, *segmentation["size"])
    return segmentation
