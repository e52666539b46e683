"""The loop of fine-tuning."""

import copy
import math
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from polygrain.evaluate.choosing import Choosing, ranked_rows
from polygrain.evaluate.features import Views, encoded, joined
from polygrain.evaluate.finetune.batches import AugmentedImages, batches, seeded, steps_of_epoch
from polygrain.evaluate.finetune.classifier import Classifier, build, build_optimizer, pieces
from polygrain.evaluate.labelled import Sets
from polygrain.evaluate.models import pick_device
from polygrain.evaluate.regression import fit_logistic
from polygrain.evaluate.settings.finetune import FinetuneRecipe, FinetuneSettings
from polygrain.parts.finetuning import averaged, mixing
from polygrain.schedules import Time, warmup_cosine

PROBE_STRENGTH = 0.1
STEPS_AFTER, STEP = (0.6, 0.8), 0.2  # SwAV: after epochs 12 and 16 of 20


class Finetuned(NamedTuple):
    """What came of it."""

    choosing: Choosing  # among the epochs
    model: Classifier  # of the chosen epoch, on the CPU
    losses: list[float]  # mean of each epoch


def finetune(
    sets: Sets,
    chooses: NDArray[np.int64],
    trains: NDArray[np.int64],
    recipe: FinetuneRecipe,
    settings: FinetuneSettings,
) -> Finetuned:
    """Trains a copy of the encoder with a fresh classifier and looks at it after the epochs.

    Args:
        chooses, trains: positions of training images.
        recipe: that of the settings, fitted to so many.
    """
    device = pick_device(settings.device)
    encoder: Any = sets.model.encoder
    data = AugmentedImages(sets.train.images, sets.size, sets.model.normalisation, recipe, settings.seed)
    with torch.random.fork_rng(), seeded(settings.seed):
        torch.manual_seed(settings.seed)  # of stochastic depth on a GPU
        model = build(encoder, sets.classes, recipe, settings.readout).to(device)
        optimizer = build_optimizer(model, recipe)
        average = None if recipe.ema is None else averaged(model, recipe.ema)
        steps = len(steps_of_epoch(trains, recipe, settings.seed, 0))
        labels = torch.from_numpy(sets.train.labels)
        if recipe.warm_start:
            vectors, found_at = frozen(model, sets.train.views, trains, settings)
            start_from_probe(model, vectors, labels[found_at])
        learn = Learning(model, optimizer, recipe, sets.classes, settings.batch_size, device, average)
        choosing, best, losses = Choosing(["finetuned"], torch.empty(0)), model, []
        for epoch in tqdm(range(recipe.epochs), desc="fine-tuning", unit="epoch", disable=None, leave=False):
            found = []
            keys = steps_of_epoch(trains, recipe, settings.seed, epoch)
            for step, (pixels, positions) in enumerate(batches(data, keys, settings.workers)):
                time = Time(epoch * steps + step, steps, recipe.epochs)
                found.append(learn.step(pixels, labels[positions], time))
            losses.append(float(np.mean(found)))
            if (epoch + 1) % settings.look_every_epochs == 0 or epoch + 1 == recipe.epochs:
                shown: Any = model if average is None else average.module
                _look(choosing, shown, sets, chooses, settings)
                if choosing.epoch == choosing.looks:
                    best = copy.deepcopy(shown).cpu()
    return Finetuned(choosing, best, losses)


class Learning(NamedTuple):
    """What one step takes."""

    model: Classifier
    optimizer: torch.optim.Optimizer
    recipe: FinetuneRecipe
    classes: int
    at_once: int  # images that go through the network together, at most
    device: str
    average: Any

    def step(self, pixels: Tensor, labels: Tensor, time: Time) -> float:
        """One step on a batch (B, 3, H, W) with labels (B,); gives its loss."""
        recipe = self.recipe
        mix = mixing(self.classes, mixup=recipe.mixup, cutmix=recipe.cutmix, smoothing=recipe.smoothing)
        pixels, shares = mix(pixels.to(self.device), labels.to(self.device))
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        total = 0.0
        parts = pieces(len(pixels), self.at_once)
        for some, wanted in zip(pixels.tensor_split(parts), shares.tensor_split(parts), strict=True):
            with torch.autocast(self.device, torch.bfloat16, enabled=self.device == "cuda"):
                logits = self.model(some)
            loss = F.cross_entropy(logits.float(), wanted, reduction="sum") / len(pixels)
            loss.backward()  # type: ignore[no-untyped-call]  # torch gives it no types
            total += loss.item()
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * share_of_peak(recipe, time)
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.model)
        if not np.isfinite(total):
            raise ValueError(f"the loss is {total} in epoch {time.epoch + 1}; lower learning_rate")
        return total


def share_of_peak(recipe: FinetuneRecipe, time: Time) -> float:
    """The factor on the peak of every group."""
    peak = recipe.learning_rate * recipe.train_batch_size / 256
    if recipe.schedule == "deit":
        return deit_rate(peak, recipe, time.epoch, time.epochs) / peak
    if recipe.schedule == "cosine_by_epoch":
        time = time._replace(step=time.epoch * time.steps_per_epoch)
    if recipe.schedule == "steps":
        passed = sum(time.epoch >= round(share * time.epochs) for share in STEPS_AFTER)
        return float(STEP**passed)
    curve = warmup_cosine(peak, recipe.min_lr, recipe.warmup_epochs, start=recipe.warmup_lr)
    return curve(time) / peak


def deit_rate(peak: float, recipe: FinetuneRecipe, epoch: int, epochs: int) -> float:
    """The learning rate of an epoch as the scripts in the lineage of DeiT have it.

    timm's `CosineLRScheduler` is stepped after an epoch with the number of that epoch, so that the first two have one
    rate and all others are an epoch late; its cosine begins with the run, under the warm-up, and so the peak itself is
    passed over (Mugs, `eval_transfer_learning.py`, sail-sg/mugs@10ab634, lines 503 and 576).
    """
    done = max(0, epoch - 1)
    if done < recipe.warmup_epochs:
        return recipe.warmup_lr + (peak - recipe.warmup_lr) * done / recipe.warmup_epochs
    return recipe.min_lr + 0.5 * (peak - recipe.min_lr) * (1 + math.cos(math.pi * done / epochs))


def classified(
    model: Classifier, views: Views, positions: NDArray[np.int64], settings: FinetuneSettings
) -> tuple[Tensor, Tensor]:
    """Logits (n, K) of the plain views, and the positions of those images that can be decoded, on the CPU."""
    vectors, found = frozen(model, views, positions, settings)
    head, device = model.head.eval(), pick_device(settings.device)
    with torch.no_grad():
        return head(vectors.to(device)).float().cpu(), found


def frozen(
    model: Classifier, views: Views, positions: NDArray[np.int64], settings: FinetuneSettings
) -> tuple[Tensor, Tensor]:
    """What the head sees of the plain views (n, D), and the positions of those that can be decoded, on the CPU."""
    rows = [positions[start : start + settings.batch_size] for start in range(0, len(positions), settings.batch_size)]
    device = pick_device(settings.device)
    seen = joined(
        list(encoded(model.encoder, views, rows, readout=settings.readout, workers=settings.workers, device=device))
    )
    return seen.pooled, seen.positions


def start_from_probe(model: Classifier, vectors: Tensor, labels: Tensor) -> None:
    """The head becomes a logistic regression on frozen features (n, D), centred and with a mean square length of 1.

    Features may have far more in common than what tells them apart; without that common part the fit is quick.

    Args:
        labels: (n,).
    """
    mean = vectors.mean(0)
    scale = (vectors - mean).square().sum(1).mean().sqrt().clamp(min=1e-12)
    probe = fit_logistic((vectors - mean) / scale, labels, strength=PROBE_STRENGTH, intercept=True)
    weight = probe.weight / scale  # (K, D) float64
    bias = probe.bias - weight @ mean.to(weight)
    head: Any = model.head
    with torch.no_grad():
        head.weight.zero_()
        head.bias.fill_(probe.bias.min().item())  # of classes that no training image is of
        head.weight[probe.classes] = weight.to(head.weight)
        head.bias[probe.classes] = bias.to(head.bias)


def _look(
    choosing: Choosing, model: Classifier, sets: Sets, chooses: NDArray[np.int64], settings: FinetuneSettings
) -> None:
    shares: list[float] = []
    logits = truth = torch.empty(0)
    for side, positions in ((sets.train, chooses), (sets.val, sets.val.positions)):
        logits, found = classified(model, side.views, positions, settings)
        truth = torch.from_numpy(side.labels)[found]
        shares.append((logits.argmax(1) == truth).double().mean().item())
    choosing.labels = truth
    choosing.look(shares[:1], shares[1:], lambda _: ranked_rows(logits))  # the test images came last
