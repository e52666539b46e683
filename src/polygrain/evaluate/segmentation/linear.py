"""Linear segmentation: BatchNorm and a 1x1 convolution on a frozen backbone, one head for each learning rate."""

import dataclasses
from typing import Any

import numpy as np
import torch
from torch import Tensor

from polygrain.evaluate.labelled import describe
from polygrain.evaluate.models import pick_device
from polygrain.evaluate.result import Result
from polygrain.evaluate.segmentation import scores as scoring
from polygrain.evaluate.segmentation.crops import Crops, batches
from polygrain.evaluate.segmentation.dense import Dense, Heads, LinearHead, OnMaps, dilated
from polygrain.evaluate.segmentation.patches import train_patch_head
from polygrain.evaluate.segmentation.running import (
    Look,
    held_out,
    open_seeded,
    patches_of,
    segment_set,
    summary,
    usual_size,
)
from polygrain.evaluate.segmentation.scores import Tally
from polygrain.evaluate.segmentation.sets import Truth, open_sets
from polygrain.evaluate.segmentation.training import head_optimizer, heads_loss, optimise, polynomial
from polygrain.evaluate.settings.segmentation import SegmentLinearSettings
from polygrain.evaluate.settings.segmentation_recipes import LinearRecipe
from polygrain.parts.encoder import Encoder

LARGEST_FEATURES = 8 * 2**30  # bytes


def evaluate_segment_linear(
    model: Any,
    data: Any,
    val: Any = None,
    split: str | None = None,
    settings: SegmentLinearSettings | None = None,
) -> Result:
    """Trains linear heads on a frozen backbone and images of `data`, and segments those of `val` by one of them.

    Args:
        model: a run, a backbone file, "timm:NAME", "random:NAME", "pixels", or an encoder.
        data: images with masks, see `open_masked`; `split`: see `open_train_and_val`.

    Raises:
        ValueError: when something handed in cannot be used, in one line.
    """
    settings = settings or SegmentLinearSettings()
    opened = open_seeded(model, settings.seed)
    recipe = settings.recipe()
    sets = open_sets(data, val, split, opened.encoder.channels, settings)
    encoder = opened.encoder
    if recipe.output_stride is not None:
        if not isinstance(encoder, Encoder):
            raise ValueError("raw pixels have no stages to dilate; omit output_stride")
        encoder = dilated(encoder, recipe.output_stride)
    size = recipe.size or usual_size(encoder.stride)
    recipe = dataclasses.replace(recipe, size=size)
    device = pick_device(settings.device)
    dense = Dense(encoder.to(device), recipe.levels)
    trains, chooses = sets.train, None
    if len(recipe.learning_rates) > 1:
        trains, chooses = map(sets.train.take, held_out(len(sets.train), settings.held_out, settings.seed))
    look = Look(opened.normalisation, size, recipe.window, recipe.stride, settings.workers, device)
    notes = list(sets.notes)
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        train = _on_crops if recipe.streamed else _on_features
        heads = train(dense, trains, recipe, len(sets.names), look, settings.seed).eval()
    count = len(recipe.learning_rates)

    def logits_of(pixels: Tensor) -> Tensor:
        found: Tensor = heads(dense(pixels))
        return found

    tested = segment_set(logits_of, dense.stride, sets.val, len(sets.names), look, heads=count)
    held = segment_set(logits_of, dense.stride, chooses, len(sets.names), look, heads=count) if chooses else None
    chosen = int(np.argmax([scoring.mean_iou(one) for one in held])) if held else 0
    found = scoring.scores(tested[chosen], seed=settings.seed)
    if held:
        found |= {
            "miou_held_out": scoring.mean_iou(held[chosen]),
            "miou_oracle": max(scoring.mean_iou(one) for one in tested),
        }
        if chosen in (0, count - 1):
            notes.append(f"the chosen rate {recipe.learning_rates[chosen]} is an end of learning_rates; widen them")
    if scoring.constant(tested[chosen]):
        notes.append("every pixel got the same class: these features tell no class from another")
    return Result(
        protocol="segment_linear",
        description=_in_words(recipe, settings, held is not None),
        scores={"linear": found},
        facts={
            **sets.facts,
            "recipe": recipe.told(),
            "held_out": settings.held_out if held else 0.0,
            "seed": settings.seed,
        },
        model=describe(opened) | {"dimensions": dense.dim},
        details={
            **sets.details,
            "learning_rate": recipe.learning_rates[chosen],
            "held_out_miou": _by_rate(recipe, held),
            "test_miou": _by_rate(recipe, tested),
            "iou": scoring.by_class(tested[chosen], sets.names),
            "confusion": tested[chosen].confusion.astype(int).tolist(),
        },
        notes=tuple(notes),
        about=summary(opened.name, sets),
        items={"linear": scoring.sample(tested[chosen])},
    )


def _on_features(dense: Dense, train: Truth, recipe: LinearRecipe, classes: int, look: Look, seed: int) -> Heads:
    """Heads trained on the patches of whole images, computed once."""
    patches: list[Tensor] = []
    counts: list[Tensor] = []
    for vectors, pixels in patches_of(dense, train, classes, look):
        patches.append(vectors)
        counts.append(pixels)
        if (size := vectors.numel() * 4 * len(train)) > LARGEST_FEATURES:
            raise ValueError(
                f"features of {len(train)} images at {look.size} px take {size / 2**30:.0f} GiB of memory, above 8: "
                "lower --size, or choose a preset that trains on crops"
            )
    return Heads(
        OnMaps(
            train_patch_head(
                patches,
                counts,
                steps=recipe.steps,
                batch_size=recipe.images_per_step,
                learning_rate=rate,
                weight_decay=recipe.weight_decay,
                seed=seed,
                batch_norm=recipe.batch_norm,
                device=look.device,
            )
        )
        for rate in recipe.learning_rates
    )


def _on_crops(dense: Dense, train: Truth, recipe: LinearRecipe, classes: int, look: Look, seed: int) -> Heads:
    """Heads trained on random crops."""
    heads = Heads(
        LinearHead(dense.dim, classes, batch_norm=recipe.batch_norm, dropout=recipe.dropout)
        for _ in recipe.learning_rates
    ).to(look.device)
    crops = Crops(
        train,
        recipe.steps * recipe.images_per_step,
        size=look.size,
        crop=-(-recipe.crop // dense.stride) * dense.stride,
        normalisation=look.normalisation,
        seed=seed,
        colours=True,
    )
    optimise(
        heads_loss(dense, heads),
        batches(crops, recipe.images_per_step, look.workers),
        head_optimizer(heads, recipe.learning_rates, name=recipe.optimizer, weight_decay=recipe.weight_decay),
        [
            polynomial(
                recipe.steps,
                power=recipe.power,
                warmup_steps=min(recipe.warmup_steps, recipe.steps // 10),
                least=recipe.least_rate / rate,
            )
            for rate in recipe.learning_rates
        ],
        steps=recipe.steps,
        device=look.device,
    )
    return heads


def _by_rate(recipe: LinearRecipe, tallies: list[Tally] | None) -> dict[str, float]:
    return {str(rate): scoring.mean_iou(one) for rate, one in zip(recipe.learning_rates, tallies or [], strict=False)}


def _in_words(recipe: LinearRecipe, settings: SegmentLinearSettings, chosen: bool) -> str:
    norm = "BatchNorm and " if recipe.batch_norm else ""
    window = f"windows of {recipe.window} px, stride {recipe.stride}" if recipe.window else "whole images"
    on = (
        f"random crops of {recipe.crop} px, pixel by pixel"
        if recipe.streamed
        else "features of whole images computed once, each patch judged by the classes of its pixels (quick)"
    )
    levels = f"last {recipe.levels} levels" if recipe.levels > 1 else "last level"
    choice = (
        f"; of {len(recipe.learning_rates)} learning rates the best on {settings.held_out:.0%} of the training images, "
        "held out. miou_oracle: the best of them on the test images, which is no honest score"
        if chosen
        else ""
    )
    return (
        f"Linear segmentation ({settings.preset}): {norm}1x1 convolution on the {levels} of the frozen backbone, "
        f"{recipe.optimizer}, {recipe.steps:,} steps of {recipe.images_per_step} on {on}; tested on {window}, short "
        f"side {recipe.size} px, logits enlarged to the masks; one confusion matrix; 95 % interval from 1,000 "
        f"resamples of the images{choice}"
    )
