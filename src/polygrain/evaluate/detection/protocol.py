"""Object detection and instance segmentation: the protocol."""

import json
import os
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from polygrain.data.coco import CocoImages
from polygrain.data.coco_json import pycocotools
from polygrain.distributed import world_size
from polygrain.evaluate.detection.detector import build_detector, shown_at, with_drop_path
from polygrain.evaluate.detection.examples import Examples, batches
from polygrain.evaluate.detection.scores import coco_scores
from polygrain.evaluate.detection.training import find, train
from polygrain.evaluate.features import default_workers
from polygrain.evaluate.labelled import describe
from polygrain.evaluate.models import Model, open_model, pick_device
from polygrain.evaluate.outputs import check_file
from polygrain.evaluate.result import Result, versions
from polygrain.evaluate.settings.detection import DetectSettings
from polygrain.parts.encoder import Encoder

Where = str | os.PathLike[str]
NAMES = {"mask": "Mask R-CNN", "cascade": "Cascade Mask R-CNN"}
PYRAMIDS = {"taps": "four blocks at four resolutions", "last": "the last block at four resolutions"}


def evaluate_detect(
    model: Any,
    data: Where,
    val: Where,
    data_annotations: Where,
    val_annotations: Where,
    settings: DetectSettings | None = None,
) -> Result:
    """Fine-tunes a detector on the training images, and scores what it finds in the others.

    Args:
        model: what `open_model` takes; an encoder is copied, not changed.
        data: training images, and `val`: test images, see `CocoImages`.

    Raises:
        ValueError: when something handed in cannot be used, in one line.
    """
    settings = settings or DetectSettings()
    pycocotools()
    if world_size() > 1:
        raise ValueError(f"detect trains in one process, not {world_size()}; start it without torchrun")
    recipe, device, begun = settings.recipe(), pick_device(settings.device), time.monotonic()
    if settings.out is not None:
        check_file(settings.out)
    images, tests = CocoImages(data, data_annotations), CocoImages(val, val_annotations)
    _check_categories(images, tests)
    images.check_headers()
    tests.check_headers()
    positions, notes = learnable(images)
    if known := standing_in(tests, images):
        notes.append(f"{known} of {len(tests)} test images are among the training images, byte for byte")
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        opened = open_model(model)
        tuned = fine_tuned(opened, images, positions, settings)
    trained = time.monotonic()
    shown_at(tuned.detector, recipe.test_side)
    detections = find(tuned.detector, tests, images.annotations, workers=_workers(settings), device=device)
    scores = coco_scores(tests.annotations, detections, seed=settings.seed)
    if settings.out is not None:
        Path(settings.out).write_text(json.dumps(readable(detections)) + "\n")
    if not detections:
        notes.append("nothing was found in any image: the training was too short, or went wrong")
    return Result(
        protocol="detect",
        description=_description(settings, len(tuned.losses)),
        scores=scores,
        facts={
            "data": {"images": len(positions), "digest": images.digest()},
            "val": {"images": len(tests), "digest": tests.digest()},
            "categories": len(images.annotations.categories),
            "features": _features(tuned.encoder, settings),
            "precision": "bfloat16 in the pyramid" if device.startswith("cuda") else "float32",
            "settings": settings.of_protocol(),
        },
        model=describe(opened),
        details={
            "data": [os.fspath(data), os.fspath(data_annotations)],
            "val": [os.fspath(val), os.fspath(val_annotations)],
            "steps": len(tuned.losses),
            "detections": len(detections),
            "loss": _ends(tuned.losses),
            "seconds": {"training": round(trained - begun, 1), "test": round(time.monotonic() - trained, 1)},
            "device": device,
            "versions": {**versions(), "pycocotools": version("pycocotools")},
        },
        notes=tuple(notes),
        about=f"{opened.name} on {os.fspath(val)}: {len(tests)} images, trained on {len(positions)}",
    )


class FineTuned(NamedTuple):
    """A detector after its training."""

    detector: nn.Module
    encoder: Encoder  # inside it
    losses: list[float]  # the sum of all terms, by step


def fine_tuned(opened: Model, images: CocoImages, positions: Sequence[int], settings: DetectSettings) -> FineTuned:
    """A detector on a copy of the backbone, trained on the images at these positions."""
    recipe, device = settings.recipe(), pick_device(settings.device)
    steps = settings.steps_for(len(positions))
    encoder = with_drop_path(_encoder(opened), recipe.drop_path)
    detector = build_detector(
        encoder,
        detector=settings.detector,
        pyramid=settings.pyramid,
        classes=len(images.annotations.categories),
        normalisation=opened.normalisation,
        recipe=recipe,
    ).to(device)
    loader = batches(
        Examples(images, crop=recipe.crop, jitter=recipe.jitter, seed=settings.seed),
        positions,
        steps=steps,
        images_per_step=recipe.images_per_step,
        workers=_workers(settings),
    )
    return FineTuned(detector, encoder, train(detector, encoder, loader, recipe, steps=steps, device=device))


def learnable(images: CocoImages) -> tuple[list[int], list[str]]:
    """Positions of the images with an object to learn, and notes about what is left out.

    Raises:
        ValueError: when there is none.
    """
    notes = []
    if empty := images.annotations.empty():
        told = "objects have nothing of their box or mask inside the image and train nothing"
        notes.append(f"{len(empty)} {told}, the first is annotation {empty[0]}")
    spared = {*empty}
    positions = [
        position
        for position, image in enumerate(images.ids)
        if any(not one["iscrowd"] and one["id"] not in spared for one in images.annotations.objects[image])
    ]
    if not positions:
        raise ValueError(f"{str(images.annotations.path)!r} has no object to learn: its annotations are crowds or none")
    if len(positions) < len(images):
        notes.append(f"{len(images) - len(positions)} training images have no object and are left out")
    return positions, notes


def standing_in(tests: CocoImages, images: CocoImages) -> int:
    """How many test images are also training images, byte for byte."""
    known = {*images.digests}
    return sum(digest in known for digest in tests.digests)


def readable(detections: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Detections as json can hold them."""
    return [
        {**one, "segmentation": {**one["segmentation"], "counts": one["segmentation"]["counts"].decode()}}
        for one in detections
    ]


def _check_categories(images: CocoImages, tests: CocoImages) -> None:
    known, wanted = images.annotations, tests.annotations
    if differing := sorted({*known.categories} ^ {*wanted.categories}):
        both = f"{str(known.path)!r} and {str(wanted.path)!r}"
        raise ValueError(f"{both} must have the same categories; only one of them has category {differing[0]}")


def _encoder(opened: Model) -> Encoder:
    if not isinstance(opened.encoder, Encoder):
        raise ValueError("raw pixels have no layers to fine-tune; give a backbone")
    if opened.encoder.channels != 3:
        raise ValueError(f"{opened.name} takes images of {opened.encoder.channels} channels; photographs have 3")
    return opened.encoder


def _features(encoder: Encoder, settings: DetectSettings) -> str:
    return PYRAMIDS[settings.pyramid] if encoder.family == "vit" else "maps of the last four stages"


def _description(settings: DetectSettings, steps: int) -> str:
    recipe = settings.recipe()
    sides = f"short side {min(recipe.short_sides)} to {max(recipe.short_sides)} px"
    if recipe.jitter is not None:
        sides = f"large-scale jitter to {recipe.jitter} px"
    pieces = f"{recipe.images_at_once} at once, " if recipe.images_at_once < recipe.images_per_step else ""
    cheap = "Cheap check, not the papers' protocol: " if settings.preset == "quick" else ""
    return (
        f"{cheap}{NAMES[settings.detector]}, all layers fine-tuned, {steps} steps of {recipe.images_per_step} images "
        f"({pieces}{sides}), AdamW {recipe.learning_rate:g}, layer decay {recipe.layer_decay:g}; COCO's AP "
        f"at IoU 0.5 to 0.95 by pycocotools, test images of {recipe.test_side} px, last step, no selection; 95 % "
        "interval of AP from 200 resamples of the images"
    )


def _workers(settings: DetectSettings) -> int:
    return default_workers() if settings.workers is None else settings.workers


def _ends(losses: Sequence[float]) -> dict[str, float]:
    """Means of the first and the last ten losses, of fewer where there are not thirty."""
    count = max(1, min(10, len(losses) // 3))
    ends = {"first": losses[:count], "last": losses[-count:]}
    return {name: round(sum(values) / count, 4) for name, values in ends.items()}
