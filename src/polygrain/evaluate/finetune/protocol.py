"""Fine-tuning as a protocol: the epoch is chosen on held-out training images."""

from pathlib import Path
from typing import Any

import torch

from polygrain.distributed import world_size
from polygrain.evaluate.choosing import held_out_rows
from polygrain.evaluate.finetune.batches import fitted
from polygrain.evaluate.finetune.classifier import batch_norm_of_pieces
from polygrain.evaluate.finetune.training import Finetuned, finetune
from polygrain.evaluate.labelled import Sets, about, describe, facts_of, only_decodable, open_sets
from polygrain.evaluate.metrics import right
from polygrain.evaluate.models import pick_device
from polygrain.evaluate.outputs import prepare_new_folder
from polygrain.evaluate.readouts import IN_WORDS, check_readout
from polygrain.evaluate.result import Result
from polygrain.evaluate.sampling import Sample
from polygrain.evaluate.settings.finetune import FinetuneRecipe, FinetuneSettings
from polygrain.evaluate.subsets import Choice
from polygrain.parts.encoder import Encoder
from polygrain.weights.backbone import FILE, save_backbone
from polygrain.weights.tensors import write_tensors

SCHEDULES = {
    "cosine": "cosine by step",
    "cosine_by_epoch": "cosine by epoch",
    "deit": "cosine by epoch, one late, as DeiT's script steps it",
    "steps": "steps down at 60 % and 80 %",
}


def evaluate_finetune(model: Any, data: Any, val: Any, settings: FinetuneSettings | None = None) -> Result:
    """Fine-tunes a copy of the backbone on `data`, or a part of it, and tests it on `val`.

    Args:
        model: a run, a backbone file, "timm:NAME", "random:NAME", or an encoder, which stays as it is.
        data: labelled training images: a folder, shards, or a map-style dataset.

    Raises:
        ValueError: when something handed in cannot be used, in one line.
    """
    settings = settings or FinetuneSettings()
    device = pick_device(settings.device)
    sets = opened(model, data, val, settings)
    encoder: Any = sets.model.encoder
    chooses, trains = (
        sets.train.positions[rows.numpy()]
        for rows in held_out_rows(len(sets.train.positions), settings.held_out, settings.seed)
    )
    recipe = fitted(settings.recipe(), len(trains))
    normed = batch_norm_of_pieces(encoder, recipe.train_batch_size, settings.batch_size)
    found = finetune(sets, chooses, trains, recipe, settings)
    if settings.out is not None:
        save(Path(settings.out), found, sets)
    choosing = found.choosing
    train_labels = torch.from_numpy(sets.train.labels[sets.train.positions])
    facts = facts_of(sets, train_labels, choosing.labels, settings)
    facts |= {"features": f"{IN_WORDS[settings.readout]}, fine-tuned"} | ({"batch_norm": normed} if normed else {})
    described = describe(sets.model) | {"dimensions": encoder.dim}
    return Result(
        protocol="finetune",
        description=in_words(recipe, settings),
        scores={"finetuned": choosing.scores(settings.seed)},
        facts=facts,
        model=described,
        details={
            **sets.details,
            "chosen_epoch": min(choosing.epoch * settings.look_every_epochs, recipe.epochs),
            "losses": found.losses,
            "precision": "bfloat16" if device == "cuda" else "float32",
        },
        notes=sets.notes + notes_of(recipe, settings, normed),
        about=f"{about(described, facts, sets.details)}; fine-tuned on {len(trains):,} images",
        items={"finetuned": Sample(right(choosing.ranked, choosing.labels))},
    )


def opened(model: Any, data: Any, val: Any, settings: FinetuneSettings) -> Sets:
    """The model and those images that can be decoded, and a place for what comes of them."""
    if world_size() > 1:
        raise ValueError("fine-tuning runs in one process; start it without torchrun")
    sets = open_sets(model, data, val, settings, Choice(settings.recipe().share, settings.list))
    encoder = sets.model.encoder
    if not isinstance(encoder, Encoder):
        raise ValueError("raw pixels have no weights to fine-tune; give a backbone")
    if encoder.channels != 3:
        raise ValueError(f"fine-tuning augments RGB images, and this backbone takes {encoder.channels} channels")
    encoder.check_size(sets.size)
    check_readout(encoder, settings.readout)
    if settings.out is not None:
        prepare_new_folder(settings.out)
    return only_decodable(sets, settings.workers)


def notes_of(recipe: FinetuneRecipe, settings: FinetuneSettings, normed: str) -> tuple[str, ...]:
    """What a reader must know about how the recipe was followed.

    Args:
        recipe: as it was fitted to the images.
    """
    wanted, used = settings.recipe().train_batch_size, recipe.train_batch_size
    notes = [f"a batch has {used:,} images, not {wanted:,}; learning rates follow it"] if used < wanted else []
    notes += [f"{normed}; raise batch_size to {used:,} where memory allows"] if normed else []
    notes += ["preset quick: cheap, and not the protocol of any paper"] if settings.preset == "quick" else []
    return tuple(notes)


def in_words(recipe: FinetuneRecipe, settings: FinetuneSettings) -> str:
    """The protocol as people would tell it."""
    share = f" on {recipe.share:.3g} of the images of each class" if recipe.share else ""
    head = "" if recipe.head_learning_rate is None else f", {recipe.head_learning_rate:g} of the head"
    augmented = ["random resized crops, mirrored"]
    augmented += ["RandAugment"] if recipe.rand_augment else []
    augmented += [f"erasing {recipe.erase:g}"] if recipe.erase else []
    augmented += [f"mixup {recipe.mixup:g}"] if recipe.mixup else []
    augmented += [f"CutMix {recipe.cutmix:g}"] if recipe.cutmix else []
    start = "; the classifier begins as a logistic regression on the frozen features" if recipe.warm_start else ""
    average = f"; weights averaged with decay {recipe.ema:g}" if recipe.ema is not None else ""
    return (
        f"Fine-tuning, preset {settings.preset}{share}: {recipe.optimizer}, learning rate {recipe.learning_rate:g} per "
        f"256 images{head}, layer decay {recipe.layer_decay:g}, weight decay {recipe.weight_decay:g}, {recipe.epochs} "
        f"epochs of batch {recipe.train_batch_size}, {recipe.warmup_epochs} of them warm-up, "
        f"{SCHEDULES[recipe.schedule]}, drop path {recipe.drop_path:g}, label smoothing {recipe.smoothing:g}; "
        f"{', '.join(augmented)}{start}{average}. The epoch that is best on {settings.held_out:.0%} of the training "
        "images, held out, is reported. top1_oracle: the best epoch on the test images, which is no honest score"
    )


def save(folder: Path, found: Finetuned, sets: Sets) -> None:
    """Writes the fine-tuned backbone, which every other protocol can take, and the classifier beside it."""
    extra = {"crop_size": sets.size, "finetuned": True}
    save_backbone(folder / FILE, found.model.encoder, normalisation=sets.model.normalisation, extra=extra)
    head = {name: tensor.contiguous() for name, tensor in found.model.head.state_dict().items()}
    write_tensors(folder / "head.safetensors", head, {"readout": found.model.readout})
