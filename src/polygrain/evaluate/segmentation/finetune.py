"""Segmentation by fine-tuning: UPerNet on the pyramid of a backbone, as iBOT and Mugs measure theirs."""

import dataclasses
from typing import Any

import torch

from polygrain.evaluate.labelled import describe
from polygrain.evaluate.models import pick_device
from polygrain.evaluate.result import Result
from polygrain.evaluate.segmentation import scores as scoring
from polygrain.evaluate.segmentation.crops import Crops, batches
from polygrain.evaluate.segmentation.dense import rebuilt
from polygrain.evaluate.segmentation.running import Look, open_seeded, segment_set, summary, usual_size
from polygrain.evaluate.segmentation.sets import open_sets
from polygrain.evaluate.segmentation.training import optimise, polynomial
from polygrain.evaluate.segmentation.upernet import UPerNet
from polygrain.evaluate.settings.segmentation import SegmentFinetuneSettings
from polygrain.evaluate.settings.segmentation_recipes import FinetuneRecipe
from polygrain.parts.encoder import Encoder
from polygrain.parts.layer_decay import layer_groups


def evaluate_segment_finetune(
    model: Any, data: Any, val: Any = None, split: str | None = None, settings: SegmentFinetuneSettings | None = None
) -> Result:
    """Trains UPerNet with a copy of the backbone on `data`, and segments the images of `val`.

    Args:
        model: a run, a backbone file, "timm:NAME", "random:NAME", or an encoder.
        data: images with masks, see `open_masked`; `split`: see `open_train_and_val`.

    Raises:
        ValueError: when something handed in cannot be used, in one line.
    """
    settings = settings or SegmentFinetuneSettings()
    opened = open_seeded(model, settings.seed)
    if not isinstance(opened.encoder, Encoder):
        raise ValueError("raw pixels have no weights to fine-tune; name a backbone")
    sets = open_sets(data, val, split, opened.encoder.channels, settings)
    recipe = settings.recipe()
    size = recipe.size or usual_size(opened.encoder.stride)
    recipe = dataclasses.replace(recipe, size=size, crop=recipe.crop or size)
    look = Look(
        opened.normalisation, size, recipe.window, recipe.stride, settings.workers, pick_device(settings.device)
    )
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        network = UPerNet(
            rebuilt(opened.encoder, drop_path_rate=recipe.drop_path),
            len(sets.names),
            channels=recipe.channels,
            dropout=recipe.dropout,
        ).to(look.device)
        train(network, sets.train, recipe, look, settings.seed)
    (tested,) = segment_set(network.eval(), network.stride, sets.val, len(sets.names), look)
    notes = sets.notes
    if scoring.constant(tested):
        notes += ("every pixel got the same class: train longer, or at another learning rate",)
    return Result(
        protocol="segment_finetune",
        description=_in_words(recipe, settings.preset),
        scores={"UPerNet": scoring.scores(tested, seed=settings.seed)},
        facts={
            **sets.facts,
            "recipe": dataclasses.asdict(recipe),
            "seed": settings.seed,
        },
        model=describe(opened) | {"levels": list(network.pyramid.indices)},
        details={
            **sets.details,
            "iou": scoring.by_class(tested, sets.names),
            "confusion": tested.confusion.astype(int).tolist(),
        },
        notes=notes,
        about=summary(opened.name, sets),
        items={"UPerNet": scoring.sample(tested)},
    )


def train(network: UPerNet, truth: Any, recipe: FinetuneRecipe, look: Look, seed: int) -> None:
    """AdamW with layer-wise learning rates, in a line to 0 behind a warm-up; position codes and the class token get
    weight decay, as in iBOT's and Mugs' runs."""
    assert recipe.crop is not None
    crops = Crops(
        truth,
        recipe.steps * recipe.images_per_step,
        size=look.size,
        crop=-(-recipe.crop // network.stride) * network.stride,
        normalisation=look.normalisation,
        seed=seed,
        colours=True,
    )
    groups = layer_groups(
        network,
        network.pyramid.encoder,
        lr=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        layer_decay=recipe.layer_decay,
        decay_positions=True,
    )
    warmup_steps = min(recipe.warmup_steps, recipe.steps // 10)
    optimise(
        network.train().loss,
        batches(crops, recipe.images_per_step, look.workers),
        torch.optim.AdamW(groups),
        [polynomial(recipe.steps, power=1.0, warmup_steps=warmup_steps)] * len(groups),
        steps=recipe.steps,
        device=look.device,
    )


def _in_words(recipe: FinetuneRecipe, preset: str) -> str:
    window = f"windows of {recipe.window} px, stride {recipe.stride}" if recipe.window else "whole images"
    return (
        f"UPerNet fine-tuning ({preset}): four-level pyramid of the backbone, each map of a ViT after the final norm, "
        f"decoder of {recipe.channels} channels; AdamW, learning rate {recipe.learning_rate}, layer decay "
        f"{recipe.layer_decay}, {recipe.steps:,} steps of {recipe.images_per_step} random crops of {recipe.crop} px; "
        f"tested after the last step on {window}, short side {recipe.size} px, logits enlarged to the masks; one "
        "confusion matrix; 95 % interval from 1,000 resamples of the images"
    )
