"""Linear probing: classifiers on frozen features, one of them chosen on held-out training images."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from polygrain.distributed import world_size
from polygrain.evaluate.augmented import train_on_augmented
from polygrain.evaluate.choosing import Choosing, held_out_rows
from polygrain.evaluate.labelled import Labelled, Sets, encoded_sets, only_decodable, open_sets, summary
from polygrain.evaluate.metrics import right
from polygrain.evaluate.probing import head_names, look
from polygrain.evaluate.readouts import IN_WORDS, columns, covering
from polygrain.evaluate.result import Result
from polygrain.evaluate.sampling import Sample
from polygrain.evaluate.settings import LinearSettings, Readout
from polygrain.evaluate.settings.heads import HeadRecipe
from polygrain.evaluate.sweep import train_heads

AUGMENTED = {
    "crop": "random resized crops, mirrored at even odds",
    "strong": "random resized crops, mirrored, with RandAugment and random erasing as the strong crops of Mugs",
}

FEWEST_STEPS = 1000


def evaluate_linear(model: Any, data: Any, val: Any, settings: LinearSettings | None = None) -> Result:
    """Trains linear classifiers on features of `data` and tests one of them on `val`.

    Args:
        model: a run, a backbone file, "timm:NAME", "random:NAME", "pixels", or an encoder.
        data: labelled training images: a folder, shards, or a map-style dataset.

    Raises:
        ValueError: when something handed in cannot be used, in one line.
    """
    settings = settings or LinearSettings()
    seen, recipe, choosing = trained(open_sets(model, data, val, settings), settings)
    rate = float(choosing.name.split()[-1])
    words = "; ".join(IN_WORDS[readout] for readout in recipe.readouts)
    return Result(
        protocol=("linear_bn" if recipe.batch_norm else "linear") + "_sweep" * (recipe.augmentation == "none"),
        description=in_words(recipe, settings),
        scores={"linear": choosing.scores(settings.seed)},
        facts={
            **seen.facts,
            "features": words + ", float32",
            "settings": settings.of_protocol() | {"size": seen.facts["settings"]["size"]},
        },
        model=seen.model,
        details={**seen.details, "learning_rate": rate, **choosing.details()},
        notes=seen.notes + choosing.notes() + notes_of(recipe, rate, settings, seen.facts["data"]["images"]),
        about=summary(seen),
        items={"linear": Sample(right(choosing.ranked, seen.val_labels))},
    )


def trained(sets: Sets, settings: LinearSettings) -> tuple[Labelled, HeadRecipe, Choosing]:
    """What was seen, the recipe as it was followed, and the classifier that was chosen."""
    recipe = settings.recipe()
    widest = dataclasses.replace(settings, readout=covering(recipe.readouts), readouts=None)
    if recipe.augmentation == "none":
        seen = encoded_sets(sets, widest)
        recipe = fitted(recipe, len(seen.train), settings)
        return seen, recipe, _on_cached(seen, recipe, widest)
    if world_size() > 1:
        raise ValueError("linear probes on augmented images run in one process; start them without torchrun")
    sets = only_decodable(sets, settings.workers)
    recipe = fitted(recipe, len(sets.train.positions), settings)
    seen, choosing = train_on_augmented(sets, recipe, widest)
    return seen, recipe, choosing


def notes_of(recipe: HeadRecipe, rate: float, settings: LinearSettings, images: int) -> tuple[str, ...]:
    """What a reader must know about how the recipe was followed.

    Args:
        recipe: as it was fitted to the images.
        rate: the chosen one.
        images: labelled ones, with those held out.
    """
    used, wanted = recipe.head_batch_size, settings.recipe().head_batch_size
    small = f"a batch has {used:,} images, all there are, not {wanted:,}; learning rates follow it"
    notes = [small] if used < wanted else []
    steps = recipe.epochs * math.ceil((images - round(settings.held_out * images)) / used)
    if steps < FEWEST_STEPS:
        mend = "give more epochs, a smaller head_batch_size, or preset sweep"
        notes.append(f"{steps:,} steps in all, which may leave classifiers where they began; {mend}")
    if len(recipe.learning_rates) > 1 and rate in (min(recipe.learning_rates), max(recipe.learning_rates)):
        notes.append(f"the chosen learning rate {rate} is at the end of the sweep; widen learning_rates")
    return tuple(notes)


def fitted(recipe: HeadRecipe, images: int, settings: LinearSettings) -> HeadRecipe:
    """The recipe for so many labelled images, of which a part is held out.

    Raises:
        ValueError: when none is left to train, or to choose with.
    """
    _, trains = held_out_rows(images, settings.held_out, settings.seed)
    batch = min(recipe.head_batch_size, len(trains))
    return with_steps(dataclasses.replace(recipe, head_batch_size=batch), len(trains))


def with_steps(recipe: HeadRecipe, images: int) -> HeadRecipe:
    """With as many epochs as make the least number of steps on so many images."""
    steps = math.ceil(images / recipe.head_batch_size)
    return dataclasses.replace(recipe, epochs=max(recipe.epochs, math.ceil(recipe.least_steps / steps)))


def in_words(recipe: HeadRecipe, settings: LinearSettings) -> str:
    """The protocol as people would tell it."""
    augmented = recipe.augmentation != "none"
    features = "frozen, un-augmented features computed once"
    if augmented:
        features = f"frozen features of {AUGMENTED[recipe.augmentation]}, computed anew in each epoch"
    norm = ", behind a batch norm without gain or offset" if recipe.batch_norm else ""
    decay = f"weight decay {recipe.weight_decay:g}" if recipe.weight_decay else "no weight decay"
    warmup = f"{recipe.warmup_epochs} epochs of warm-up, " if recipe.warmup_epochs else ""
    heads = f"{len(recipe.learning_rates)} learning rates"
    if len(recipe.readouts) > 1:
        heads += f" x {len(recipe.readouts)} readouts"
    return (
        f"Linear probe, preset {settings.preset}, on {features}{norm}: {recipe.optimizer.upper()} (momentum 0.9, "
        f"{decay}), {recipe.epochs} epochs, {warmup}cosine by {'step' if recipe.by_step else 'epoch'}, batch "
        f"{recipe.head_batch_size}; {heads} trained together. The classifier {'and epoch ' * augmented}that is best on "
        f"{settings.held_out:.0%} of the training images, held out, is tested once. top1_oracle: the best of them on "
        "the test images, which is no honest score"
    )


def _on_cached(seen: Labelled, recipe: HeadRecipe, settings: LinearSettings) -> Choosing:
    """The sweep over readouts and learning rates, on features of one readout that covers all."""
    width = seen.train.shape[1]
    parts = {readout: columns(readout, covering(recipe.readouts), width) for readout in recipe.readouts}
    return linear_probe(
        {readout: seen.train[:, part] for readout, part in parts.items()},
        seen.train_labels,
        {readout: seen.val[:, part] for readout, part in parts.items()},
        seen.val_labels,
        classes=seen.classes,
        recipe=recipe,
        held_out=settings.held_out,
        seed=settings.seed,
    )


def linear_probe(
    train: Mapping[Readout, Tensor],
    train_labels: Tensor,
    test: Mapping[Readout, Tensor],
    test_labels: Tensor,
    *,
    classes: int,
    recipe: HeadRecipe,
    held_out: float = 0.1,
    seed: int = 0,
) -> Choosing:
    """The sweep on features that are there already.

    Args:
        train: (N, D) by readout, and test: (n, D), with labels (N,) and (n,).
        held_out: share of the training rows that chooses the classifier and trains nothing.

    Raises:
        ValueError: when that share is no row, or all of them.
    """
    chooses, trains = held_out_rows(len(train_labels), held_out, seed, train_labels.device)
    sweeps = {
        readout: train_heads(rows[trains], train_labels[trains], classes=classes, recipe=recipe, seed=seed)
        for readout, rows in train.items()
    }
    choosing = Choosing(head_names(recipe, list(train)), test_labels)
    held = {readout: rows[chooses] for readout, rows in train.items()}
    look(choosing, sweeps, held, train_labels[chooses], test)
    return choosing
