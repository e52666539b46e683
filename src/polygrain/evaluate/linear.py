"""Linear probing: a classifier on frozen features, its learning rate chosen on held-out training images."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from polygrain.evaluate.labelled import labelled_features, summary
from polygrain.evaluate.metrics import Scores, classification_scores, right
from polygrain.evaluate.result import Result
from polygrain.evaluate.settings import LinearSettings
from polygrain.evaluate.sweep import Heads, train_heads


class Probed(NamedTuple):
    """What the sweep found."""

    scores: Scores  # of the head chosen on held-out images; "top1_oracle" is the best any head does on the test images
    chosen: float  # its learning rate
    held_out: dict[float, float]  # top-1 on held-out training images by learning rate
    test: dict[float, float]  # top-1 on the test images by learning rate
    right: NDArray[np.float64]  # (n,) 1 for each test image that the chosen head names rightly


def evaluate_linear(model: Any, data: Any, val: Any, settings: LinearSettings | None = None) -> Result:
    """Trains linear classifiers on features of `data` and tests one of them on `val`.

    Args:
        model: a run, a backbone file, "timm:NAME", "random:NAME", "pixels", or an encoder.
        data: labelled training images: a folder, shards, or a map-style dataset.

    Raises:
        ValueError: when something handed in cannot be used, in one line.
    """
    settings = settings or LinearSettings()
    seen = labelled_features(model, data, val, settings)
    probed = linear_probe(
        seen.train,
        seen.train_labels,
        seen.val,
        seen.val_labels,
        classes=seen.classes,
        learning_rates=settings.learning_rates,
        epochs=settings.epochs,
        batch_size=settings.head_batch_size,
        held_out=settings.held_out,
        seed=settings.seed,
    )
    notes = seen.notes
    if probed.chosen in (min(settings.learning_rates), max(settings.learning_rates)) and len(probed.test) > 1:
        notes += (f"the chosen learning rate {probed.chosen} is at the end of the sweep; widen learning_rates",)
    return Result(
        protocol="linear_sweep",
        description=(
            f"Linear probe on frozen, un-augmented features computed once: SGD (momentum 0.9, no weight decay), "
            f"{settings.epochs} epochs, cosine by epoch, batch {settings.head_batch_size}; "
            f"{len(settings.learning_rates)} learning rates trained together, the one that is best on "
            f"{settings.held_out:.0%} of the training images, held out, is tested once. "
            "top1_oracle: the best of them on the test images, which is no honest score"
        ),
        scores={"linear": probed.scores},
        facts=seen.facts,
        model=seen.model,
        details={
            **seen.details,
            "learning_rate": probed.chosen,
            "held_out_top1": {str(rate): share for rate, share in probed.held_out.items()},
            "test_top1": {str(rate): share for rate, share in probed.test.items()},
        },
        notes=notes,
        about=summary(seen),
        items={"linear": probed.right},
    )


def linear_probe(
    train: Tensor,
    train_labels: Tensor,
    test: Tensor,
    test_labels: Tensor,
    *,
    classes: int,
    learning_rates: Sequence[float],
    epochs: int = 100,
    batch_size: int = 256,
    held_out: float = 0.1,
    seed: int = 0,
) -> Probed:
    """The sweep on features that are there already.

    Args:
        train: (N, D) and test: (n, D), with labels (N,) and (n,).
        held_out: share of the training rows that chooses the learning rate and trains nothing.

    Raises:
        ValueError: when that share is no row, or all of them.
    """
    count = round(held_out * len(train))
    if not 0 < count < len(train):
        raise ValueError(
            f"holding out {held_out:.0%} of {len(train)} training images leaves {count} to choose the learning rate "
            f"and {len(train) - count} to train; both must be 1 or more"
        )
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(train))).to(train.device)
    chooses, trains = order[:count], order[count:]
    heads = train_heads(
        train[trains],
        train_labels[trains],
        classes=classes,
        learning_rates=learning_rates,
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
    )
    held = _top1(heads, train[chooses], train_labels[chooses])
    tested = _top1(heads, test, test_labels)
    best = int(held.argmax())  # the first, and so the lowest rate, of equals
    alone = Heads(heads.weight[best : best + 1], heads.bias[best : best + 1])
    ranked = alone.logits(test)[0].argsort(dim=1, descending=True, stable=True)
    scores = classification_scores(ranked, test_labels, seed=seed)
    scores |= {"top1_held_out": held[best].item(), "top1_oracle": tested.max().item()}
    rates = [float(rate) for rate in learning_rates]
    return Probed(
        scores,
        rates[best],
        dict(zip(rates, held.tolist(), strict=True)),
        dict(zip(rates, tested.tolist(), strict=True)),
        right(ranked, test_labels),
    )


def _top1(heads: Heads, features: Tensor, labels: Tensor) -> Tensor:
    """Share of right answers of each head (H,)."""
    chunks = zip(torch.split(features, 1024), torch.split(labels, 1024), strict=True)
    right = [heads.logits(rows).argmax(-1) == truth for rows, truth in chunks]  # (H, B) each
    return torch.cat(right, dim=1).double().mean(dim=1)
