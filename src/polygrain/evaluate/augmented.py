"""Linear classifiers on frozen features of augmented views, which are computed anew in every epoch."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from polygrain.data.batch import Batch
from polygrain.data.loading import ViewBatches
from polygrain.evaluate.choosing import Choosing, held_out_rows
from polygrain.evaluate.features import default_workers, evaluating
from polygrain.evaluate.labelled import Labelled, Sets, describe, encoded_side, facts_of
from polygrain.evaluate.loading import from_workers
from polygrain.evaluate.models import pick_device
from polygrain.evaluate.probing import head_names, look
from polygrain.evaluate.readouts import check_readout, columns, covering, read_out
from polygrain.evaluate.settings import FeatureSettings
from polygrain.evaluate.settings.classification import LinearSettings
from polygrain.evaluate.settings.heads import HeadRecipe
from polygrain.evaluate.sweep import Learner
from polygrain.views import Crops

SCALE = (0.08, 1.0)  # of the random crops: share of the image area
RECIPES = {"crop": "supervised", "strong": "mugs_strong"}


def train_on_augmented(sets: Sets, recipe: HeadRecipe, settings: LinearSettings) -> tuple[Labelled, Choosing]:
    """Trains all heads in one pass of the encoder over the training images per epoch.

    The random crops are resized bicubically; the scripts of DINO and VICReg do so bilinearly. Erased boxes are filled
    before normalisation, as Mugs does in pretraining; its `eval_linear.py` fills them after.

    Args:
        sets: of images that can be decoded.
        settings: their `readout` covers those of the recipe.

    Returns:
        What was seen without augmentation, of the training images those held out; and the classifier chosen on them.
    """
    encoder: Any = sets.model.encoder
    check_readout(encoder, covering(recipe.readouts))
    device = pick_device(settings.device)
    encoder.to(device)
    notes = list(sets.notes)
    chooses, trains = (
        sets.train.positions[rows.numpy()]
        for rows in held_out_rows(len(sets.train.positions), settings.held_out, settings.seed)
    )
    held, held_labels, _ = encoded_side(sets, sets.train, chooses, settings, notes)
    val, val_labels, _ = encoded_side(sets, sets.val, sets.val.positions, settings, notes)
    width = val.shape[1]
    parts = {readout: columns(readout, covering(recipe.readouts), width) for readout in recipe.readouts}
    learners = {
        readout: Learner(
            part.stop - part.start, sets.classes, recipe, torch.Generator().manual_seed(settings.seed), device
        )
        for readout, part in parts.items()
    }
    choosing = Choosing(head_names(recipe, recipe.readouts), val_labels)
    stream = AugmentedFeatures(sets, trains, recipe, settings)
    with evaluating(encoder):
        for epoch in tqdm(range(recipe.epochs), desc="linear", unit="epoch", disable=None, leave=False):
            for step, (rows, labels) in enumerate(stream.epoch(epoch)):
                for readout, learner in learners.items():
                    learner.step(rows[:, parts[readout]], labels, epoch + step / stream.steps)
            heads = {readout: learner.heads for readout, learner in learners.items()}
            shown = [{readout: rows[:, part] for readout, part in parts.items()} for rows in (held, val)]
            look(choosing, heads, shown[0], held_labels, shown[1])
    train_labels = torch.from_numpy(sets.train.labels[sets.train.positions])
    seen = Labelled(
        held,
        held_labels,
        val,
        val_labels,
        sets.classes,
        facts_of(sets, train_labels, val_labels, settings),
        describe(sets.model) | {"dimensions": width},
        sets.details,
        tuple(notes),
    )
    return seen, choosing


class AugmentedFeatures:
    """Features of one random crop of each training image, in an order of its own in every epoch."""

    def __init__(self, sets: Sets, positions: np.ndarray, recipe: HeadRecipe, settings: FeatureSettings) -> None:
        crops = Crops(name="linear", count=1, size=sets.size, scale=SCALE, recipes=(RECIPES[recipe.augmentation],))
        images, model = sets.train.images, sets.model
        self.views = ViewBatches(images, [crops], seed=settings.seed, normalisation=model.normalisation)
        self.positions, self.settings, self.encoder = positions, settings, model.encoder
        self.labels, self.batch_size = torch.from_numpy(sets.train.labels), recipe.head_batch_size
        self.steps = -(-len(positions) // self.batch_size)

    @torch.no_grad()
    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Features (B, D) and labels (B,) of one step of the heads after another."""
        order = np.random.default_rng([self.settings.seed, epoch]).permutation(self.positions)
        steps = [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]
        size = self.settings.batch_size
        parts = [[step[start : start + size] for start in range(0, len(step), size)] for step in steps]
        keys = [[(epoch, int(i)) for i in part] for part in itertools.chain(*parts)]
        workers = default_workers() if self.settings.workers is None else self.settings.workers
        loader: Any = DataLoader(self.views, batch_sampler=keys, num_workers=workers, collate_fn=_same)
        batches = from_workers(loader)
        for group in parts:
            found = [self._encoded(next(batches), part) for part in group]
            yield torch.cat([rows for rows, _ in found]), torch.cat([labels for _, labels in found])

    def _encoded(self, batch: Batch, wanted: np.ndarray) -> tuple[Tensor, Tensor]:
        """Of one batch, without the replacements of images that cannot be decoded."""
        device = pick_device(self.settings.device)
        (view,) = batch.views["linear"]
        kept = batch.image == torch.from_numpy(wanted)
        pixels = view.pixels[kept].to(device)
        rows = read_out(self.encoder, pixels, self.settings.readout).vectors.float()
        return rows, self.labels[batch.image[kept]].to(device)


def _same(batch: Any) -> Any:
    return batch
