"""All methods on the same images: one encoder, one budget of images seen, one evaluation.

    python -m benchmarks.comparison TRAIN --val VAL --out FOLDER [--methods mugs dino ...] [--seeds 0 1]
        [--coarse TRAIN_COARSE VAL_COARSE] [--segmentation CAMVID]

TRAIN and VAL are labelled shards (a tar, or a glob in quotes), --coarse the same images with other labels, CAMVID a
folder with train.tar, val.tar, classes.json and splits.json. Each run is a process of its own and writes
FOLDER/NAME-seed.json and its backbone beside it; a run whose file is there is not repeated. --methods also takes the
variants of `kinds` by name, and "baselines", "methods", "ablations" or "small_crops" for all of a kind. At the end
`benchmarks.comparison_report` makes a table and a figure of all files in FOLDER.

    python -m benchmarks.comparison TRAIN --tune --methods rates --out FOLDER

is how the learning rates in `METHOD` were chosen: every method at each of `RATES`, trained and measured on two parts of
TRAIN, so that nothing is chosen on VAL.
"""

import argparse
import dataclasses
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from benchmarks.comparison_report import rates_table, write_report
from benchmarks.comparison_scores import WHOLE, scores

from polygrain.data.part import Part
from polygrain.data.sources import Images, open_images
from polygrain.evaluate.pixels import RawPixels
from polygrain.methods import METHODS
from polygrain.parts.encoder import Encoder
from polygrain.train.alarm import FEATURES
from polygrain.train.building import untrained
from polygrain.train.settings import PretrainSettings
from polygrain.train.setup import Result, pretrain

SIZE = 40  # pixels: of the large crops
EPOCHS, BATCH = 3, 32
RATES = (8e-3, 3e-3, 1e-3, 4e-4)  # that are tried, the last where the third was best: per 256 images
TUNING = 2500  # images to train on and to measure with when rates are tried
# a convolution and a pooling make the patches, from which short runs learn much more than from a plain projection; the
# class token is there for the methods that need one, and the mean over patches is the image's vector
ENCODER: dict[str, Any] = {
    "encoder": "vit_tiny_r_s16_p8_224",
    "encoder_args": {
        "img_size": 64,
        "patch_size": 2,  # of the map that the convolution leaves: 8 pixels
        "embed_dim": 128,
        "depth": 4,
        "num_heads": 4,
        "class_token": True,
        "global_pool": "avg",
    },
}

# for every method that has them; what is not named is chosen by `--scale auto`
COMMON: dict[str, Any] = {
    "large_size": SIZE,
    "large_scale": (0.2, 1.0),
    "small_crops": 0,  # in the main table all see large crops alone
    "optimizer": "adamw",  # the papers' LARS, LARC and SGD want longer runs
    "freeze_prototypes_epochs": 0,
    "warmup_epochs": 0.5,
    "temperature": 0.1,
    "batch_norm_in_heads": True,
    "out": 128,
    "prototype_dim": 128,
    "prototypes": 1024,
    "queue_size": 2048,
    "memory_size": 2048,
}
# The highest learning rates are those of `RATES` that were best on images held out of TRAIN, see --tune.
SHARP = {"teacher_temperature": 0.02, "teacher_temperature_start": 0.02}
METHOD: dict[str, dict[str, Any]] = {
    "barlow_twins": {"base_lr": 3e-3},
    "byol": {"base_lr": 3e-3},
    "deepclusterv2": {"base_lr": 3e-3},
    "dino": {"base_lr": 3e-3},
    # their heads have no batch norm; at 0.04 the teacher's assignments become uniform, and the alarm rings
    "ibot": {"base_lr": 4e-4, **SHARP, "patch_temperature": 0.02},
    "mst": {"base_lr": 4e-4, **SHARP},
    "infomin": {"base_lr": 1e-3, "warmup_epochs": 0},  # whole epochs; its puzzle of nine pieces is part of it
    "mae": {"base_lr": 1e-3},
    "mocov2": {"base_lr": 1e-3},
    "mocov3": {"base_lr": 3e-3, "freeze_patches": False},  # frozen patches are for the stability of long runs
    "mugs": {"base_lr": 3e-3, "strong_probability": 0.0, "group_weight": 0.2, "patch_embed_lr": 1.0},
    "nnclr": {"base_lr": 3e-3},
    "pcl": {"base_lr": 1e-3, "warmup_epochs": 1},  # whole epochs before the first clusters
    "simclr": {"base_lr": 3e-3},
    "simclr_l": {"base_lr": 8e-3},
    "simsiam": {"base_lr": 4e-4},
    "supervised": {"base_lr": 4e-4, "augmentation": "plain", "mixup": 0.0, "cutmix": 0.0},
    "swav": {"base_lr": 1e-3},
    "vicreg": {"base_lr": 3e-3},
    "vicregl": {"base_lr": 1e-3},
}


class Kind(NamedTuple):
    """One row of the table."""

    method: str  # empty where there is none
    options: Mapping[str, Any] = {}
    without: tuple[str, ...] = ()
    trained: bool = True


def kinds() -> dict[str, dict[str, Kind]]:
    small = {"small_crops": 4, "small_size": 24, "small_scale": (0.05, 0.25)}
    return {
        "baselines": {
            "raw pixels": Kind("", trained=False),
            "untrained": Kind("", trained=False),
            # these two begin with sines for position codes, and not with small random ones
            **{f"untrained as {name}": Kind(name, trained=False) for name in ("mae", "mocov3")},
        },
        "methods": {name: Kind(name) for name in METHODS},
        "ablations": {
            **{f"mugs without {term}": Kind("mugs", {}, (term,)) for term in ("instance", "local_group", "group")},
            **{f"vicregl alpha {alpha}": Kind("vicregl", {"alpha": alpha}) for alpha in (0.5, 0.9, 1.0)},
        },
        "rates": {f"{name} at {rate:g}": Kind(name, {"base_lr": rate}) for name in METHODS for rate in RATES},
        "small_crops": {
            f"{name} with 4 small crops": Kind(name, small) for name in ("mugs", "dino", "swav", "vicregl")
        },
    }


def settings_of(kind: Kind, data: str, out: Path, seed: int) -> PretrainSettings:
    return PretrainSettings(
        data=data,
        out=str(out),
        method=kind.method or "mugs",
        without=kind.without,
        seed=seed,
        epochs=EPOCHS,
        batch_size=BATCH,
        position="dino",
        threads=1,
        workers=0,
        probe_every_epochs=0,
        keep=1,
        keep_going=True,  # the alarm's words are in the file of the run
        **ENCODER,
    )


def options_of(kind: Kind) -> dict[str, Any]:
    known = {field.name for field in dataclasses.fields(METHODS[kind.method])}
    common = {name: value for name, value in COMMON.items() if name in known}
    return {**common, **METHOD.get(kind.method, {}), **kind.options}


def run(name: str, kind: Kind, seed: int, given: argparse.Namespace) -> dict[str, Any]:
    """Trains and evaluates; what goes into the run's file."""
    torch.set_num_threads(1)
    train, val = sets(given)
    found: dict[str, Any] = {"name": name, "trained": kind.trained, "seed": seed, "hardware": hardware()}
    if not kind.trained:
        encoder = baseline(name, kind, settings_of(kind, given.train, given.out, seed))
    else:
        folder = Path(tempfile.mkdtemp(prefix="comparison-"))
        began = time.process_time()
        result = pretrain(settings_of(kind, given.train, folder, seed), options_of(kind), None, train)
        seconds = time.process_time() - began  # of one core, whatever else runs
        seen = len(train) // BATCH * BATCH * EPOCHS
        found |= {"images_seen": seen, "seconds": seconds, "images_per_second": seen / seconds, **facts(result)}
        shutil.copy(folder / "backbone.safetensors", file_of(name, seed, given).with_suffix(".safetensors"))
        shutil.rmtree(folder)
        encoder = result.encoder
    began = time.process_time()
    found["scores"] = scores(encoder, train, val, given.coarse, given.segmentation)
    return {**found, "evaluation_seconds": time.process_time() - began}


def sets(given: argparse.Namespace) -> tuple[Images, Images]:
    """Images to train and fit on, and images to test on."""
    train = open_images(given.train)
    if not given.tune:
        return train, open_images(given.val)
    order = np.random.default_rng(0).permutation(len(train))
    return Part(train, order[:TUNING]), Part(train, order[TUNING : 2 * TUNING])


def file_of(name: str, seed: int, given: argparse.Namespace) -> Path:
    """Where what a run found is written; its backbone goes beside it."""
    found: Path = given.out / f"{name.replace(' ', '_')}-{seed}.json"
    return found


def baseline(name: str, kind: Kind, settings: PretrainSettings) -> Encoder | RawPixels:
    if name == "raw pixels":
        return RawPixels(patch_size=8, image_size=WHOLE)
    encoder = untrained(settings)
    return METHODS[kind.method](**options_of(kind)).build(encoder).backbone if kind.method else encoder


def facts(result: Result) -> dict[str, Any]:
    """What a finished run says of itself: memory, choices, last values, and what the alarm saw."""
    records = [json.loads(line) for line in (result.out / "log.jsonl").read_text().splitlines()]
    failure = result.out / "failure-rank0.json"
    readings = {}
    for name, dead in (FEATURES | result.method.dead_values()).items():
        values = [record.get(name, record.get(f"gauges/{name}")) for record in records]
        values = [value for value in values if value is not None]
        bounds = {"dead_from": dead.low, "dead_to": str(dead.high) if dead.high == float("inf") else dead.high}
        readings[name] = {"lowest": min(values), "highest": max(values), **bounds} if values else bounds
    return {
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "config": (result.out / "config.yaml").read_text(),
        "first": records[0],
        "last": records[-1],
        "alarm": json.loads(failure.read_text())["reason"] if failure.exists() else "silent",
        "readings": readings,
    }


def hardware() -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine()
    )
    return {"processor": model, "cores": os.cpu_count(), "threads_used": 1, "torch": torch.__version__}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train")
    parser.add_argument("--val")
    parser.add_argument("--tune", action="store_true", help="train and measure on two parts of TRAIN")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--methods", nargs="+", default=["baselines", "methods"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--coarse", nargs=2)
    parser.add_argument("--segmentation")
    parser.add_argument("--here", action="store_true", help="run in this process, and make no table")
    given = parser.parse_args()
    if bool(given.val) == given.tune:
        parser.error("say --val VAL, or --tune")
    given.out.mkdir(parents=True, exist_ok=True)
    known = {name: kind for group in kinds().values() for name, kind in group.items()}
    names = [name for wanted in given.methods for name in kinds().get(wanted, [wanted])]
    if unknown := [name for name in names if name not in known]:
        parser.error(f"no method or variant {unknown[0]!r}; there are {', '.join([*kinds(), *known])}")
    for seed in given.seeds:
        for name in names:
            file = file_of(name, seed, given)
            if file.exists():
                continue
            if given.here:
                file.write_text(json.dumps(run(name, known[name], seed, given), indent=1))
                continue
            print(f"{time.strftime('%H:%M:%S')} {name}, seed {seed}", flush=True)
            again = [*sys.argv[1:], "--here", "--methods", name, "--seeds", str(seed)]
            with file.with_suffix(".log").open("w") as log:
                subprocess.run(
                    [sys.executable, "-m", "benchmarks.comparison", *again], check=False, stdout=log, stderr=log
                )
    if given.tune and not given.here:
        print(rates_table(given.out))
    elif not given.here:
        print(write_report(given.out, {group: list(members) for group, members in kinds().items()}))


if __name__ == "__main__":
    main()
