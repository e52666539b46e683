"""Dense correspondence: patches of one crop look for their places in another crop of the same image."""

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from polygrain.data.recipes import find_recipe
from polygrain.data.sources import open_images
from polygrain.evaluate.labelled import describe, named
from polygrain.evaluate.models import open_model, pick_device
from polygrain.evaluate.result import Result, versions
from polygrain.evaluate.retrieval.pairs import METRICS, compare_crops, compare_keypoints, read_pairs
from polygrain.evaluate.sampling import Sample
from polygrain.evaluate.settings.retrieval import CorrespondSettings, TwoCrops


def evaluate_correspond(
    model: Any,
    data: Any,
    keypoints: str | os.PathLike[str] | None = None,
    settings: CorrespondSettings | None = None,
) -> Result:
    """Matches patches of two crops of each image, whose geometry is known, or keypoints of pairs of images.

    Args:
        model: what `open_model` takes; `data`: what `open_images` takes.
        keypoints: JSON, see `read_pairs`.

    Raises:
        ValueError: when something handed in cannot be used, in one line.
    """
    settings = settings or CorrespondSettings()
    given = settings.given()
    if keypoints is not None and given:
        raise ValueError(
            f"{next(iter(given))} is for crops of one image, and --keypoints names pairs; give one of them"
        )
    how = TwoCrops(**given)
    if find_recipe(how.recipe).rand_augment == "image":
        raise ValueError(f"recipe {how.recipe!r} turns and shears images, so places are not known; use another")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)  # of the weights of an untrained encoder
        opened = open_model(model)
    size = settings.size or opened.image_size
    opened.encoder.check_size(size)
    device = pick_device(settings.device)
    opened.encoder.to(device)
    images = open_images(data, opened.encoder.channels)
    digest = hashlib.blake2b(images.content().encode(), digest_size=16)
    if keypoints is None:
        chosen = np.sort(np.random.default_rng(settings.seed).permutation(len(images))[: how.images])
        parts = compare_crops(opened, images, chosen, size, how, seed=settings.seed, device=device)
        row, kind = "crops", f"two random crops of {how.scale[0]:g} to {how.scale[1]:g} of each image"
    else:
        pairs = read_pairs(keypoints, images)
        digest.update(Path(keypoints).read_bytes())
        parts = compare_keypoints(opened, images, pairs, size, device)
        row, kind = "keypoints", "keypoints of pairs of images, each squeezed to a square"
    seen = list(parts)
    values = torch.cat([part.found for part in seen]).double().numpy()  # (n, metrics)
    there = ~np.isnan(values[:, 0])
    asked = len(values) if keypoints is not None else min(how.images, len(images))
    notes = [f"{asked - len(values)} images cannot be decoded and are left out"] if asked > len(values) else []
    notes += [] if there.all() else [f"{np.count_nonzero(~there)} pairs show no point in common (n/a) and are left out"]
    notes += ["all patches of a picture have the same features: matches are arbitrary"] * any(p.alike for p in seen)
    if not there.any():
        raise ValueError("no pair of pictures shows a point in common; larger crops (--scale) overlap more")
    if seen[0].grid == (1, 1):
        notes.append(f"at {size} px this model's map is one cell, which any match finds; --size gives more")
    first = Sample(values[there, 0])
    return Result(
        protocol="correspond",
        description=(
            f"Dense correspondence ({kind}, {size} px): each patch in the overlap takes the most similar patch of the "
            "other picture (cosine); PCK@r: share within r rows and columns of the true cell; chance: of a random "
            "patch; mutual: share of matches that hold both ways; means over pairs, 95 % interval from resampled pairs"
        ),
        scores={
            row: {
                **dict(zip(METRICS, values[there].mean(axis=0).tolist(), strict=True)),
                **first.estimate(seed=settings.seed).scores(METRICS[0]),
            }
        },
        facts={
            "data": {"pairs": len(values), "digest": digest.hexdigest()},
            "kind": kind,
            "grid": list(seen[0].grid),
            "features": "patches of the last block after the final norm, unit length",
            "settings": {"size": size, "seed": settings.seed, **({} if keypoints is not None else how._asdict())},
        },
        model=describe(opened),
        details={"data": named(data), "versions": versions()},
        notes=tuple(notes),
        about=f"{opened.name}: {there.sum():,} pairs from {named(data)}",
        items={row: first},
    )
