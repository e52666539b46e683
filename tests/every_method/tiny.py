"""Every method at sizes that train in milliseconds."""

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import torch

from polygrain.data.scenes import FINE, Scenes
from polygrain.methods import METHODS
from polygrain.methods.base import Method
from polygrain.parts.encoder import Encoder, EncoderSettings
from polygrain.schedules import Time
from polygrain.train.settings import PretrainSettings
from polygrain.train.setup import Result, pretrain
from polygrain.views import View
from tests.methods.views import random_views

IMAGES, BATCH, STEPS = 24, 8, 12
NOW = Time(step=30, steps_per_epoch=10, epochs=10)
SIZES: dict[str, Any] = {
    "large_size": 32, "small_size": 16, "small_crops": 1, "hidden": 32, "predictor_hidden": 32, "out": 16,
    "prototype_dim": 16, "prototypes": 32, "queue_size": 64, "memory_size": 64, "neighbours": 2, "expander_width": 32,
    "local_width": 16, "width": 32, "warmup_epochs": 1, "decoder_width": 32,
    "decoder_depth": 1, "decoder_heads": 2,
}  # fmt: skip
MORE: dict[str, dict[str, Any]] = {  # what a method needs besides, by its own names
    "mae": {"decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2},
    "supervised": {"classes": len(FINE), "mixup": 0.0, "cutmix": 0.0},  # these draw once per process
    "vicreg": {"optimizer": "adamw"},  # LARS moves the norms of a ViT by their raw gradients: they soon drown the rest
    "byol": {"optimizer": "adamw"},
    "swav": {"optimizer": "adamw", "queue_start_epoch": 0, "prototypes": 16},
    "deepclusterv2": {"optimizer": "adamw", "prototypes": 6},  # no more than images
    "pcl": {"clusters": (3, 6)},
}
ENCODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("vit_tiny_64", {"embed_dim": 32, "depth": 2, "num_heads": 2, "img_size": 32, "drop_path_rate": 0.1}),
    "resnet": ("resnet18_64", {"layers": [1, 1, 1, 1], "channels": [8, 16, 32, 64], "zero_init_last": False}),
    "convnext": ("convnext_femto_64", {"depths": [1, 1, 1, 1], "dims": [8, 16, 32, 64]}),
}


def options(name: str) -> dict[str, Any]:
    """Tiny values of those hyperparameters that the method has."""
    known = {field.name for field in dataclasses.fields(METHODS[name])}  # type: ignore[arg-type]
    return {**{key: value for key, value in SIZES.items() if key in known}, **MORE.get(name, {})}


@functools.cache
def family_of(name: str) -> str:
    """A family that the method takes: ViT where it can."""
    for family in ENCODERS:
        try:
            build(name, family)
        except ValueError:
            continue
        return family
    raise AssertionError(f"{name} takes no encoder at all")


def encoder(family: str) -> Encoder:
    torch.manual_seed(0)
    model, arguments = ENCODERS[family]
    return Encoder(EncoderSettings(name=model, arguments=arguments))


def build(name: str, family: str) -> Method:
    """The method, ready for a step in its fourth epoch."""
    settings = METHODS[name](**options(name))
    return settings.build(encoder(family)).train()


def begin(method: Method, images: int) -> None:
    """What happens before an epoch."""
    dim = method.student.dim

    def embed(project: Any, *, crops: str | None = None, teacher: bool = False) -> torch.Tensor:
        views = sum(request.count for request in method.crops if request.name == crops) if crops else 1
        generator = torch.Generator().manual_seed(3)
        dtype = next(method.student.parameters()).dtype
        with torch.no_grad():
            return torch.stack(
                [project(torch.randn(images, dim, generator=generator).to(dtype)).float() for _ in range(views)]
            )

    method.prepare(images)
    method.start_epoch(NOW, embed)


def step(method: Method, views: dict[str, list[View]] | None = None, bf16: bool = False) -> dict[str, torch.Tensor]:
    """Terms and gradients of one batch."""
    torch.manual_seed(1)  # drop path
    views = random_views(method.crops, BATCH) if views is None else views
    first = next(iter(views.values()))[0]
    labels = (first.image % len(FINE),) if method.needs_labels else ()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        terms = method(views, NOW, *labels)
    terms["loss"].backward()
    method.after_backward(NOW)
    return terms


def run(name: str, out: Path, added: dict[str, dict[str, Any]] | None = None, **settings: Any) -> Result:
    """The real loop on rendered pictures."""
    model, arguments = ENCODERS[family_of(name)]
    given = {"epochs": STEPS * BATCH // IMAGES, "batch_size": BATCH, "workers": 0, "threads": 1, "log_every": 1}
    chosen = PretrainSettings(
        data="scenes",
        out=str(out),
        method=name,
        encoder=model,
        encoder_args=arguments,
        scale="paper",
        probe_every_epochs=0,
        **{**given, **settings},
    )
    return pretrain(chosen, options(name), added, Scenes(IMAGES, size=40))


def records(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
