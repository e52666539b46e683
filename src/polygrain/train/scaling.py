"""Sizes, length and rates that fit the user's images and hardware, each with its reason."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, cast

import numpy as np

from polygrain.data.sources import Images

LEAST_MOMENTUM = 0.98  # below that, short runs were seen to collapse
LEAST_ROWS = 64  # of queues and prototypes
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


def choose_method(
    settings: type,
    facts: Facts,
    *,
    batch_size: int,
    epochs: int,
    patch: int,
    small_crops: bool,
    large_size: int | None = None,
) -> list[Choice]:
    """Values for those hyperparameters that the method has and that depend on the data.

    Args:
        patch: side of the encoder's patches, or its stride, in pixels.
        small_crops: whether the number of small crops is open to choice.
        large_size: side of the large crops, where it is given.
    """
    wanted = [
        *_crops(facts, patch, small_crops, large_size),
        *_stores(facts),
        _momentum(batch_size, epochs * (facts.images // batch_size)),
        Choice("warmup_epochs", max(1, min(10, epochs // 10)), "a tenth of the run, at most 10 epochs"),
        Choice("queue_start_epoch", max(1, min(15, epochs // 10)), "a tenth of the run, at most 15 epochs"),
        Choice("epsilon", 0.03, "sharper codes, what the authors advise where the loss stays at ln K"),
    ]
    if not facts.gpu:
        why = "narrower heads on a CPU"
        wanted += [Choice("hidden", 512, why), Choice("predictor_hidden", 1024, why)]
        wanted += [Choice("expander_width", 1024, why), Choice("local_width", 256, why)]
        why = "a decoder no larger than a small encoder, on a CPU"
        wanted += [Choice("decoder_width", 128, why), Choice("decoder_depth", 2, why), Choice("decoder_heads", 4, why)]
    has = {field.name for field in fields(settings)}
    ramp = _default(settings, "teacher_temperature_epochs")
    if ramp > (tenth := epochs // 10):
        wanted.append(Choice("teacher_temperature_epochs", tenth, f"a tenth of the run instead of {ramp} epochs"))
    return [choice for choice in wanted if choice.name in has]


def _default(settings: type, name: str) -> int:
    """The paper's value of a hyperparameter, 0 for a method without it."""
    return next((cast(int, field.default) for field in fields(settings) if field.name == name), 0)


def _crops(facts: Facts, patch: int, small_crops: bool, given: int | None) -> list[Choice]:
    large = 64 if facts.side <= 112 else 224 if facts.gpu else 128
    large = max(patch, min(large, 32 if facts.side <= 40 else large) // patch * patch)
    large = large if given is None else given
    small = max(patch, int(large * 0.5) // patch * patch)
    where = f"images of {facts.side} px" + ("" if facts.gpu or facts.side <= 112 else " on a CPU")
    return [
        Choice("large_size", large, f"{where}, a multiple of the {patch}-px patch"),
        Choice("small_size", small, "about half of the large crops, a multiple of the patch"),
        Choice("blur_scale", round(large / 224, 3), "recipes give the blur for crops of 224 px"),
        *([] if facts.gpu or not small_crops else [Choice("small_crops", 4, "fewer than the papers' on a CPU")]),
    ]


def _stores(facts: Facts) -> list[Choice]:
    queue, prototypes = (power_of_two(facts.images / share, LEAST_ROWS, 65536) for share in (4, 8))
    quarter = f"a quarter of {facts.images:,} images, so that few negatives are the image itself"
    least = f"the smallest that is chosen, {facts.images:,} images are few"
    return [
        Choice("queue_size", queue, quarter if queue > LEAST_ROWS else least),
        Choice("memory_size", queue, "as the queue"),
        Choice(
            "prototypes",
            prototypes,
            "an eighth of the images, so that each has some" if prototypes > LEAST_ROWS else least,
        ),
    ]


def _momentum(batch_size: int, steps: int) -> Choice:
    """0.996 is for batch 512; smaller steps need a longer memory, but one that fits the run."""
    scaled = 0.996 ** (batch_size / 512)
    longest = max(LEAST_MOMENTUM, 1 - 25 / max(steps, 1))
    if scaled <= longest:
        return Choice("momentum", round(scaled, 5), f"0.996 at batch 512 becomes 0.996^({batch_size}/512)")
    why = f"the teacher averages over 1/(1 - momentum) steps: a twenty-fifth of {steps:,}, but at least 50"
    return Choice("momentum", round(longest, 5), why)


def table(choices: list[Choice]) -> str:
    """The choices as aligned lines."""
    names = max((len(choice.name) for choice in choices), default=0)
    values = max((len(str(choice.value)) for choice in choices), default=0)
    return "\n".join(f"  {c.name:<{names}}  {c.value!s:<{values}}  {c.reason}" for c in choices)
