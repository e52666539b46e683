"""The demo: render pictures, train on them without labels, measure, and write a report one can look at."""

import json
import shutil
import sys
import time as clock
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from polygrain.data.scenes import COARSE, FINE, MASK_CLASSES, Scenes
from polygrain.evaluate.features import ImageFeatures, extract
from polygrain.evaluate.knn import knn_scores
from polygrain.evaluate.pixels import RawPixels
from polygrain.evaluate.segmentation.patches import Segmented, segmentation_probe
from polygrain.objectives.local import Local
from polygrain.parts.encoder import Encoder
from polygrain.report.curves import curves, read_log
from polygrain.report.html import Section, write_report
from polygrain.report.matches import draw_matches, png
from polygrain.report.sections import neighbours, numbers, patch_maps, picture
from polygrain.train.building import untrained
from polygrain.train.loader import usable_cores
from polygrain.train.settings import PretrainSettings
from polygrain.train.setup import Result, pretrain

SIZE = 64  # pixels
TRAIN, BANK, QUERIES, SEGMENTED = 3000, 1500, 600, 600  # pictures

# a ViT whose patches come from a convolution and a pooling, which learns from few images
ENCODER = "vit_tiny_r_s16_p8_224"
ENCODER_ARGUMENTS = {
    "img_size": SIZE,
    "patch_size": 2,  # of the map that the convolution leaves: 8 pixels
    "embed_dim": 128,
    "depth": 4,
    "num_heads": 4,
    "class_token": False,
    "global_pool": "avg",
}
METHOD = {
    "large_size": 48,
    "small_crops": 0,
    "strong_probability": 0.0,
    "blur_scale": 0.15,
    "group_weight": 0.2,
    "hidden": 512,
    "predictor_hidden": 512,
    "out": 128,
    "prototype_dim": 128,
    "batch_norm_in_heads": True,
    "prototypes": 256,
    "freeze_prototypes_epochs": 0,
    "queue_size": 256,
    "memory_size": 1024,
    "temperature": 0.1,
    "momentum": 0.98,
    "warmup_epochs": 1,
    "base_lr": 4e-3,
    "patch_embed_lr": 1.0,
}
ADDED = {"local": {"weight": 0.05, "width": 128}}
EPOCHS, BATCH = 7, 32


class Measured(NamedTuple):
    """What one encoder is worth on the scenes."""

    scores: Mapping[str, float]
    queries: ImageFeatures


def run_demo(out: Path, *, seed: int = 0) -> Mapping[str, Mapping[str, float]]:
    """Runs the whole demo into `out`; returns the scores by encoder and measure."""
    began = clock.perf_counter()
    clear(out)
    say(f"Rendering {TRAIN + BANK + QUERIES:,} pictures of {len(FINE)} kinds of things in {len(COARSE)} families")
    unlabelled = Scenes(TRAIN, size=SIZE, seed=3 * seed).keep()
    bank = Scenes(BANK, size=SIZE, seed=3 * seed + 1).keep()
    queries = Scenes(QUERIES, size=SIZE, seed=3 * seed + 2).keep()

    say("Training with Mugs and the local objective, without labels")
    settings = demo_settings(out / "run", seed)
    before = untrained(settings)
    result = pretrain(settings, METHOD, ADDED, unlabelled)

    say("Measuring")
    encoders: dict[str, Encoder | RawPixels] = {
        "raw pixels": RawPixels(patch_size=8, image_size=SIZE),
        "untrained": before,
        "trained": result.encoder,
    }
    measured = {name: measure(encoder, bank, queries) for name, encoder in encoders.items()}
    scores = {name: one.scores for name, one in measured.items()}
    print(score_table(scores))
    seconds = clock.perf_counter() - began
    report = write_report(
        out / "report.html",
        title="polygrain demo",
        subtitle=f"{TRAIN:,} rendered pictures, Mugs and the local objective, seed {seed}: {seconds / 60:.1f} minutes.",
        sections=sections(scores, measured, queries, result),
    )
    (out / "scores.json").write_text(json.dumps({"seed": seed, "seconds": round(seconds), "scores": scores}, indent=2))
    print(f"\nReport: {report}   Backbone: {result.out / 'backbone.safetensors'}   ({seconds:.0f} s)")
    return scores


def demo_settings(run: Path, seed: int) -> PretrainSettings:
    return PretrainSettings(
        data="scenes",
        out=str(run),
        encoder=ENCODER,
        encoder_args=ENCODER_ARGUMENTS,
        position="dino",
        epochs=EPOCHS,
        batch_size=BATCH,
        scale="paper",
        seed=seed,
        workers=1,
        threads=usable_cores(),  # one worker cuts these small pictures with a twentieth of a core
        probe_every_epochs=0,
    )


def clear(out: Path) -> None:
    """Removes an older demo; refuses a folder that holds something else."""
    if out.exists() and any(out.iterdir()):
        if not (out / "scores.json").exists() and not (out / "run").is_dir():
            raise ValueError(f"{out} is in use and does not hold an older demo; choose another --out")
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def measure(encoder: Encoder | RawPixels, bank: Scenes, queries: Scenes) -> Measured:
    """kNN on both levels of labels, and linear segmentation of patches."""
    known, asked = (extract(encoder, images, size=SIZE, patches=True) for images in (bank, queries))
    scores = {}
    levels = {"coarse kNN": (Scenes.coarse_labels, COARSE), "fine kNN": (Scenes.fine_labels, FINE)}
    for name, (labels, classes) in levels.items():
        truth, wanted = (torch.from_numpy(labels(images)) for images in (bank, queries))
        votes = knn_scores(known.pooled, truth, asked.pooled, wanted, classes=len(classes), ks=(20,))
        scores[name] = votes["k=20"]["top1"]
    train, val = _segmented(known, bank), _segmented(asked, queries)
    scores["segmentation mIoU"] = segmentation_probe(train, val, classes=len(MASK_CLASSES))["miou"]
    return Measured(scores, asked)


def _segmented(features: ImageFeatures, images: Scenes) -> Segmented:
    assert features.patches is not None
    masks = np.stack([images.mask(i) for i in range(SEGMENTED)])
    return Segmented(features.patches[:SEGMENTED], torch.from_numpy(masks).long(), features.grid)


def score_table(scores: Mapping[str, Mapping[str, float]]) -> str:
    columns = list(next(iter(scores.values())))
    lines = ["".join([" " * 12, *(f"{column:>20}" for column in columns)])]
    lines += [f"{name:<12}" + "".join(f"{row[column]:>20.1%}" for column in columns) for name, row in scores.items()]
    return "\n".join(lines)


def sections(
    scores: Mapping[str, Mapping[str, float]], measured: Mapping[str, Measured], queries: Scenes, result: Result
) -> list[Section]:
    """The parts of the report."""
    pictures = [queries.decode(i) for i in range(len(queries))]
    labels = [torch.from_numpy(queries.fine_labels()), torch.from_numpy(queries.coarse_labels())]
    chance = {"coarse kNN": 1 / len(COARSE), "fine kNN": 1 / len(FINE)}
    some = list(range(0, 8))
    patches: dict[str, Tensor] = {}
    for name in ("untrained", "trained"):
        found = measured[name].queries.patches
        assert found is not None
        patches[name] = found[: len(some)]
    grids = {name: measured[name].queries.grid for name in patches}
    pooled = {name: one.queries.pooled for name, one in measured.items()}
    return [
        numbers(
            scores,
            chance=chance,
            about="Without any label in training; nearest neighbours and a linear head say what the features hold.",
        ),
        neighbours(pictures, pooled, some[:6], labels=labels, about="The pictures that each encoder finds most alike."),
        patch_maps(
            [pictures[i] for i in some],
            patches,
            grids,
            about="Patch features in the colours of their three strongest directions, one basis for all pictures.",
        ),
        picture(
            matches_figure(result, pictures[0]),
            title="Crops and matches",
            about="Two crops of a picture, and the patches that the local objective matches by place and by likeness.",
        ),
        curves(read_log(result.out / "log.jsonl").records),
    ]


def matches_figure(result: Result, image: Tensor) -> bytes:
    """Two crops of one picture, and the patches that the local objective matches."""
    local = result.method.objectives["local"]
    assert isinstance(local, Local)
    return png(draw_matches(result.method.student, [image], result.method.crops, project=local.project))
