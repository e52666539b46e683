"""Sizes, length and rates that fit the user's images and hardware, each with its reason."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np

from polygrain.data.sources import Images

SMALL = 200_000  # images; up to here the papers' values (queues of 65,536, momentum for batch 512 ...) do not fit


class Choice(NamedTuple):
    """One value that was chosen, and why."""

    name: str
    value: Any
    reason: str


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the choices are made from."""

    images: int
    side: int  # median shorter side of a sample, in pixels
    gpu: bool
    cores: int


def look_at(images: Images, gpu: bool, sample: int = 32) -> Facts:
    """Decodes a few images, evenly spread, to learn how large they are."""
    positions = np.unique(np.linspace(0, len(images) - 1, sample).astype(int))
    sides = [min(images.decode(int(i)).shape[-2:]) for i in positions]
    return Facts(images=len(images), side=int(np.median(sides)), gpu=gpu, cores=os.cpu_count() or 1)


def power_of_two(value: float, low: int, high: int) -> int:
    """The largest power of two up to `value`, within bounds."""
    return int(min(high, max(low, 2 ** math.floor(math.log2(max(1.0, value))))))


def choose_run(facts: Facts, given: Mapping[str, Any]) -> list[Choice]:
    """Encoder, batch size and epochs, as far as they are not given."""
    choices = []
    if given.get("encoder") is None:
        choices.append(_encoder(facts))
    if given.get("batch_size") is None:
        largest = 512 if facts.gpu else 64
        batch = power_of_two(facts.images / 8, 2, largest)
        why = f"a power of two, at least 8 steps an epoch, at most {largest} on a {'GPU' if facts.gpu else 'CPU'}"
        choices.append(Choice("batch_size", min(batch, facts.images), why))
    if given.get("epochs") is None:
        seen = 10_000_000 if facts.gpu else 400_000
        epochs = max(10, min(800, round(seen / facts.images)))
        choices.append(Choice("epochs", epochs, f"about {seen:,} images seen in all, within 10 to 800 epochs"))
    return choices


def _encoder(facts: Facts) -> Choice:
    size = "small" if facts.gpu else "tiny"
    if facts.side <= 112:
        return Choice("encoder", f"vit_{size}_64", f"images of {facts.side} px: 64-px crops with patches of 8 px")
    if facts.gpu:
        return Choice("encoder", "vit_small_patch16_224", f"images of {facts.side} px on a GPU: the papers' ViT-S/16")
    return Choice(
        "encoder", "vit_tiny_patch16_224", f"images of {facts.side} px on a CPU: a narrow ViT with 16-px patches"
    )


def choose_method(settings: type, facts: Facts, batch_size: int, epochs: int, patch: int) -> list[Choice]:
    """Values for those hyperparameters that the method has and that depend on the data."""
    steps = epochs * (facts.images // batch_size)
    queue = power_of_two(facts.images / 4, 64, 65536)
    large = 64 if facts.side <= 112 else 224 if facts.gpu else 128
    large = max(patch, large // patch * patch)
    part = max(patch, int(large * 0.45) // patch * patch)
    momentum = 0.996 ** (batch_size / 512)
    quickest = 1 - 25 / max(steps, 100)
    why_momentum = f"0.996 at batch 512 becomes 0.996^({batch_size}/512)"
    if quickest < momentum:
        momentum = quickest
        why_momentum = f"the teacher's memory of 1/(1 - momentum) steps is kept to 1/25 of the {steps} steps"
    crops = f"images of {facts.side} px" + ("" if facts.gpu or facts.side <= 112 else " on a CPU")
    wanted = [
        Choice("large_size", large, f"{crops}, a multiple of the patch"),
        Choice("small_size", part, "a little under half of the large crops, a multiple of the patch"),
        Choice("small_crops", 10 if facts.gpu else 4, "the papers' ten" if facts.gpu else "fewer on a CPU"),
        Choice("queue_size", queue, f"a quarter of {facts.images} images, so that negatives are rarely the same image"),
        Choice("memory_size", queue, "as the queue"),
        Choice(
            "prototypes", power_of_two(facts.images / 8, 64, 65536), "an eighth of the images, so that each can be used"
        ),
        Choice("momentum", round(momentum, 5), why_momentum),
        Choice("warmup_epochs", max(1, min(10, epochs // 10)), "a tenth of the run, at most 10 epochs"),
        Choice("temperature_warmup_epochs", max(1, min(30, epochs // 3)), "a third of the run, at most 30 epochs"),
    ]
    has = {field.name for field in fields(settings)}
    return [choice for choice in wanted if choice.name in has]


def table(choices: list[Choice]) -> str:
    """The choices as aligned lines."""
    names = max((len(choice.name) for choice in choices), default=0)
    values = max((len(str(choice.value)) for choice in choices), default=0)
    return "\n".join(f"  {c.name:<{names}}  {c.value!s:<{values}}  {c.reason}" for c in choices)
