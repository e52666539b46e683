"""Readings of healthy runs and of runs that are forced dead, beside the values at which the alarm calls them dead.

    python -m benchmarks.alarm IMAGES [--seeds 0 1 2] [--steps 300] [--only healthy|dead]

IMAGES is anything `polygrain pretrain` takes. Of a healthy run the worst reading counts, at any look after step 0; of a
dead one the step at which it was stopped and what it was told. Prints a table in Markdown.
"""

import argparse
import contextlib
import dataclasses
import json
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from polygrain.data.images import Images
from polygrain.data.sources import open_images
from polygrain.methods import METHODS
from polygrain.parts.encoder import Encoder
from polygrain.train.alarm import FEATURES
from polygrain.train.settings import PretrainSettings
from polygrain.train.setup import pretrain
from polygrain.train.stops import Dead

VIT = {"encoder": "vit_tiny_64", "encoder_args": {"embed_dim": 96, "depth": 3, "num_heads": 3, "img_size": 32}}
RESNET = {"encoder": "resnet18_64", "encoder_args": {"channels": [32, 48, 64, 96], "layers": [1, 1, 1, 1]}}
HEADS = {"hidden": 256, "predictor_hidden": 256, "out": 64, "prototype_dim": 64, "prototypes": 1024}
QUEUES = {"queue_size": 1024, "memory_size": 1024}
MUGS = {"large_size": 32, "small_size": 16, "small_crops": 2, "warmup_epochs": 1, **HEADS, **QUEUES}
VICREG = {"large_size": 32, "expander_width": 256, "warmup_epochs": 1}
HEALTHY: dict[str, tuple[str, dict[str, Any], dict[str, Any], float]] = {
    "mugs, ViT": ("mugs", VIT, MUGS, 0.0),
    "mugs and local, ViT": ("mugs", VIT, MUGS, 0.1),
    "mugs, ResNet": ("mugs", RESNET, {**MUGS, "small_crops": 0, "batch_norm_in_heads": True}, 0.0),
    "vicreg, ResNet, LARS": ("vicreg", RESNET, VICREG, 0.0),
    "vicregl, ResNet": ("vicregl", RESNET, {**VICREG, "local_width": 128, "optimizer": "adamw", "base_lr": 1e-3}, 0.0),
    "vicregl, ViT": ("vicregl", VIT, {**VICREG, "local_width": 128, "optimizer": "adamw", "base_lr": 1e-3}, 0.0),
}
SIZES: dict[str, Any] = {  # of the other methods, for the hyperparameters that each has
    "large_size": 32, "small_size": 16, "small_crops": 2, "warmup_epochs": 1, **HEADS, **QUEUES, "width": 256,
    "projector_width": 256, "expander_width": 256, "local_width": 128, "decoder_width": 96, "decoder_depth": 2,
    "decoder_heads": 3, "freeze_prototypes_epochs": 0, "momentum": 0.98, "teacher_temperature_epochs": 1,
}  # fmt: skip
ADAMW = {"optimizer": "adamw", "base_lr": 1e-3}
MORE: dict[str, dict[str, Any]] = {
    "supervised": {"classes": 100},
    "byol": ADAMW,
    "barlow_twins": ADAMW,
    "simclr": ADAMW,
    "swav": {**ADAMW, "queue_start_epoch": 0, "prototypes": 128},
    "deepclusterv2": {**ADAMW, "prototypes": 128},
    "nnclr": ADAMW,
    "pcl": {"clusters": (64, 128)},
}
for name, method in METHODS.items():
    if name not in ("mugs", "vicreg", "vicregl"):
        has = {field.name for field in dataclasses.fields(method)}  # type: ignore[arg-type]
        wanted = {**SIZES, **MORE.get(name, {})}
        HEALTHY[name] = (name, VIT, {key: value for key, value in wanted.items() if key in has}, 0.0)
DEAD: dict[str, tuple[str, dict[str, Any], str]] = {
    "black images": ("mugs, ViT", {}, "black"),
    "black images, VICRegL": ("vicregl, ResNet", {}, "black"),
    "learning rate 1e6": ("mugs, ViT", {"base_lr": 1e6}, ""),
    "learning rate 1e6, VICReg": ("vicreg, ResNet, LARS", {"base_lr": 1e6}, ""),
    "learning rate 1e6, VICRegL": ("vicregl, ViT", {"base_lr": 1e6}, ""),
    "teacher temperature 5": ("mugs, ViT", {"teacher_temperature": 5.0, "teacher_temperature_start": 5.0}, ""),
    "constant encoder": ("mugs, ViT", {}, "constant"),
    "constant encoder, VICReg": ("vicreg, ResNet, LARS", {}, "constant"),
    "constant encoder, VICRegL": ("vicregl, ViT", {}, "constant"),
    "no variance term": ("vicreg, ResNet, LARS", {"variance": 0.0, "covariance": 0.0}, ""),
}


READINGS = (
    "key_spread", "target_spread", "embedding_std", "prediction_spread", "puzzle_spread", "variance", "code_entropy",
    "teacher_entropy", "perplexity", "largest_cluster", "score_spread", "embedding_spread",
)  # fmt: skip


class Black(Images):
    def name(self, i: int) -> str:
        return f"black {i}"

    def load(self, i: int) -> torch.Tensor:
        return torch.zeros(3, 64, 64, dtype=torch.uint8)


@contextlib.contextmanager
def constant() -> Iterator[None]:
    """Encoders whose features do not depend on the image."""
    features = Encoder.features

    def alike(self: Encoder, pixels: torch.Tensor) -> Any:
        found = features(self, pixels)
        return found._replace(
            pooled=found.pooled[:1].expand_as(found.pooled),
            patches=found.patches[:1, :1].expand_as(found.patches),
            unnormed=found.unnormed[:1].expand_as(found.unnormed),
        )

    Encoder.features = alike  # type: ignore[method-assign]
    try:
        yield
    finally:
        Encoder.features = features  # type: ignore[method-assign]


def run(kind: str, more: dict[str, Any], images: Images, seed: int, steps: int, out: Path) -> str:
    """What the run was stopped with, empty if it was not."""
    method, encoder, options, local = HEALTHY[kind]
    known = {field.name for field in dataclasses.fields(PretrainSettings)}
    settings = PretrainSettings(
        data="",
        out=str(out),
        method=method,
        seed=seed,
        epochs=math.ceil(steps * 32 / len(images)),
        batch_size=32,
        threads=1,
        workers=1,
        stop_after_steps=steps,
        probe_every_epochs=0,
        **{**encoder, **{name: value for name, value in more.items() if name in known}},
    )
    options = {**options, **{name: value for name, value in more.items() if name not in known}}
    try:
        pretrain(settings, options, {"local": {"weight": local, "width": 64}}, images)
    except Dead as dead:
        return str(dead)
    return ""


def readings(out: Path) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for line in (out / "log.jsonl").read_text().splitlines():
        for name, value in json.loads(line).items():
            if isinstance(value, int | float):
                found.setdefault(name.removeprefix("gauges/"), []).append(value)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--only", choices=["healthy", "dead"])
    parser.add_argument("--runs", nargs="+", choices=HEALTHY, default=list(HEALTHY), help="healthy runs to make")
    given = parser.parse_args()
    torch.set_num_threads(1)
    images = open_images(given.images)
    folder = Path(tempfile.mkdtemp(prefix="alarm-"))
    if given.only != "dead":
        print("| healthy run | seed | reading | lowest | highest | alarm |\n|---|---|---|---|---|---|", flush=True)
        for kind in given.runs:
            for seed in given.seeds:
                out = folder / f"{kind}-{seed}"
                stopped = run(kind, {}, images, seed, given.steps, out)
                for name, values in readings(out).items():
                    wanted = name in FEATURES or name.rpartition("/")[2] in READINGS
                    if wanted:
                        line = f"| {kind} | {seed} | {name} | {min(values):.3g} | {max(values):.3g} |"
                        print(line, stopped or "silent", "|", flush=True)
    if given.only != "healthy":
        print("\n| forced dead | stopped with |\n|---|---|", flush=True)
        for what, (kind, more, trick) in DEAD.items():
            with constant() if trick == "constant" else contextlib.nullcontext():
                chosen = Black(len(images)) if trick == "black" else images
                stopped = run(kind, more, chosen, 0, given.steps, folder / what)
            print(f"| {what} ({kind}) | {stopped or 'NOT STOPPED'} |", flush=True)


if __name__ == "__main__":
    main()
