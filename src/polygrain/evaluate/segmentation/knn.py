"""Segmentation by the nearest patches of the training images, without training (CAPI, arXiv:2502.08769)."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from polygrain.evaluate.labelled import constant, describe
from polygrain.evaluate.models import pick_device
from polygrain.evaluate.result import Result
from polygrain.evaluate.segmentation import scores as scoring
from polygrain.evaluate.segmentation.dense import Dense, as_map
from polygrain.evaluate.segmentation.running import (
    Look,
    held_out,
    open_seeded,
    patches_of,
    segment_set,
    summary,
    usual_size,
)
from polygrain.evaluate.segmentation.sets import Truth, open_sets
from polygrain.evaluate.segmentation.windows import LogitsOf
from polygrain.evaluate.settings.segmentation import SegmentKnnSettings
from polygrain.losses.neighbours import nearest, weighted_votes


class Bank(NamedTuple):
    """Patches of training images with a class each."""

    vectors: Tensor  # (M, D)
    labels: Tensor  # (M,) long
    images: Tensor  # (M,) long, of which training image
    seen: int  # patches there were


def evaluate_segment_knn(
    model: Any, data: Any, val: Any = None, split: str | None = None, settings: SegmentKnnSettings | None = None
) -> Result:
    """Segments images of `val` by the votes of the nearest patches of `data`.

    Args:
        model: a run, a backbone file, "timm:NAME", "random:NAME", "pixels", or an encoder.
        data: images with masks, see `open_masked`; `split`: see `open_train_and_val`.

    Raises:
        ValueError: when something handed in cannot be used, in one line.
    """
    settings = settings or SegmentKnnSettings()
    opened = open_seeded(model, settings.seed)
    sets = open_sets(data, val, split, opened.encoder.channels, settings)
    device = pick_device(settings.device)
    size = settings.size or usual_size(opened.encoder.stride)
    look = Look(opened.normalisation, size, 0, 1, settings.workers, device)
    dense = Dense(opened.encoder.to(device))
    classes, notes = len(sets.names), list(sets.notes)
    bank = collect(dense, sets.train, classes, look, most=settings.bank, seed=settings.seed)
    if constant(bank.vectors):
        notes.append("the vectors of all training patches are the same: this model tells no patch from another")
    ks = sorted({min(k, len(bank.labels)) for k in settings.k})
    if max(settings.k) > len(bank.labels):
        notes.append(f"k above the {len(bank.labels)} patches of the bank was lowered to {len(bank.labels)}")
    tested = segment_set(votes_of(dense, bank, ks, classes), dense.stride, sets.val, classes, look, heads=len(ks))
    scores = {f"k={k}": scoring.scores(one, seed=settings.seed) for k, one in zip(ks, tested, strict=True)}
    chosen = 0
    if len(ks) > 1:
        _, rows = held_out(len(sets.train), settings.held_out, settings.seed)
        without = bank_without(bank, rows)
        usable = [k for k in ks if k <= len(without.labels)]
        held = segment_set(
            votes_of(dense, without, usable, classes), dense.stride, sets.train.take(rows), classes, look,
            heads=len(usable),
        )  # fmt: skip
        chosen = int(np.argmax([scoring.mean_iou(one) for one in held]))
        scores["chosen"] = scores[f"k={ks[chosen]}"] | {
            "miou_held_out": scoring.mean_iou(held[chosen]),
            "miou_oracle": max(scoring.mean_iou(one) for one in tested),
        }
    return Result(
        protocol="segment_knn",
        description=(
            "Segmentation by nearest neighbours: each patch of the last level gets the votes of the k training patches "
            "with the largest cosine, whose class is that of most of their pixels; votes enlarged to the masks; whole "
            f"images, short side {size} px; one confusion matrix; 95 % interval from 1,000 resamples of the images. "
            f"chosen: the k best on {settings.held_out:.0%} of the training images, by the patches of the others"
        ),
        scores=scores,
        facts={
            **sets.facts,
            "k": ks,
            "size": size,
            "bank": len(bank.labels),
            "patches": bank.seen,
            "held_out": settings.held_out,
            "seed": settings.seed,
        },
        model=describe(opened) | {"dimensions": dense.dim},
        details={**sets.details, "k": ks[chosen], "iou": scoring.by_class(tested[chosen], sets.names)},
        notes=tuple(notes),
        about=f"{summary(opened.name, sets)}; {len(bank.labels):,} of {bank.seen:,} patches in the bank",
        items={"chosen" if len(ks) > 1 else f"k={ks[0]}": scoring.sample(tested[chosen])},
    )


def collect(dense: Dense, train: Truth, classes: int, look: Look, *, most: int, seed: int) -> Bank:
    """Patches of all images, at most `most`, equally many of each, drawn at random among those with a class."""
    share = max(1, most // len(train))
    random = torch.Generator().manual_seed(seed)
    vectors, labels, images, seen = [], [], [], 0
    for i, (patches, counts) in enumerate(patches_of(dense, train, classes, look)):
        known = counts.sum(1).nonzero().flatten()
        seen += len(known)
        drawn = known[torch.randperm(len(known), generator=random)[:share]].sort().values
        vectors.append(patches[drawn])
        labels.append(counts[drawn].argmax(1))
        images.append(torch.full_like(drawn, i))
    return Bank(torch.cat(vectors)[:most].to(look.device), torch.cat(labels)[:most], torch.cat(images)[:most], seen)


def bank_without(bank: Bank, rows: list[int]) -> Bank:
    """The bank without the patches of some images."""
    kept = ~torch.isin(bank.images, torch.tensor(rows))
    return Bank(bank.vectors[kept.to(bank.vectors.device)], bank.labels[kept], bank.images[kept], bank.seen)


def votes_of(dense: Dense, bank: Bank, ks: list[int], classes: int) -> LogitsOf:
    """Shares of the votes (1, len(ks) * C, rows, columns), one k behind the other; each neighbour has one vote."""
    labels = bank.labels.to(bank.vectors.device)

    def votes(pixels: Tensor) -> Tensor:
        maps = dense(pixels)
        neighbours = nearest(maps[0].flatten(1).T, bank.vectors, ks[-1])
        counts = weighted_votes(neighbours, labels, classes=classes, ks=ks, temperature=float("inf"))
        grid = (maps.shape[2], maps.shape[3])
        return torch.cat([as_map(found[None] / k, grid) for k, found in zip(ks, counts, strict=True)], dim=1)

    return votes
