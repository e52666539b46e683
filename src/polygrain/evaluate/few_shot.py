"""Few-shot classification: a handful of labelled images of each class, drawn again and again."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor

from polygrain.evaluate.labelled import labelled_features, summary
from polygrain.evaluate.metrics import Scores, classification_scores, right
from polygrain.evaluate.regression import fit_logistic
from polygrain.evaluate.result import Result
from polygrain.evaluate.sampling import Sample
from polygrain.evaluate.settings import FewShotSettings
from polygrain.evaluate.subsets import per_class
from polygrain.losses.neighbours import knn_predict

TEMPERATURE, STRENGTH = 0.07, 0.1
IN_WORDS = {
    "centroid": "the class whose mean vector (of unit vectors) has the largest cosine",
    "knn": f"votes exp(cosine / {TEMPERATURE}) of all shots",
    "logistic": f"logistic regression without intercept on unit vectors, penalty {STRENGTH} |W|^2 / 2n",
}


def evaluate_few_shot(model: Any, data: Any, val: Any, settings: FewShotSettings | None = None) -> Result:
    """Classifies the images of `val` by a few images of each class of `data`.

    Args:
        model: a run, a backbone file, "timm:NAME", "random:NAME", "pixels", or an encoder.
        data: labelled training images: a folder, shards, or a map-style dataset.

    Raises:
        ValueError: when something handed in cannot be used, in one line.
    """
    settings = settings or FewShotSettings()
    seen = labelled_features(model, data, val, settings).in_float64()
    labels = seen.train_labels.cpu().numpy()
    train, test = F.normalize(seen.train, dim=1), F.normalize(seen.val, dim=1)
    counts = np.bincount(labels)[np.unique(labels)]
    smallest, largest = int(counts.min()), int(counts.max())
    scores, each, items = {}, {}, {}
    for shots in settings.shots:
        draws = []
        for draw in range(settings.draws if shots < largest else 1):
            seed = settings.seed + draw
            rows = torch.from_numpy(np.concatenate([per_class(labels, c, shots, seed) for c in np.unique(labels)]))
            rows = rows.to(train.device)
            draws.append(predict(train[rows], seen.train_labels[rows], test, settings.classifier, seen.classes))
        found = [classification_scores(ranked, seen.val_labels, seed=settings.seed) for ranked in draws]
        name = f"{shots} shot{'s' * (shots > 1)}"
        scores[name], each[name] = (
            over_draws(found) if shots < largest else found[0],
            [score["top1"] for score in found],
        )
        items[name] = Sample(np.mean([right(ranked, seen.val_labels) for ranked in draws], axis=0))
    notes = seen.notes
    if all_taken := [str(shots) for shots in settings.shots if shots >= largest]:
        notes += (
            f"all training images are shots at {', '.join(all_taken)}: there is one draw, and its interval is from "
            "1,000 bootstrap resamples of the test images",
        )
    if max(settings.shots) > smallest:
        notes += (f"the smallest class has {smallest} images, fewer than {max(settings.shots)}: all of them are taken",)
    return Result(
        protocol="few_shot",
        description=(
            f"Few-shot classification with frozen, un-augmented features: {IN_WORDS[settings.classifier]}; mean over "
            f"{settings.draws} draws of the labelled images, with its 95 % interval (Student's t over draws)"
        ),
        scores=scores,
        facts=seen.facts,
        model=seen.model,
        details={**seen.details, "top1_of_each_draw": each},
        notes=notes,
        about=summary(seen),
        items=items,
    )


def predict(shots: Tensor, labels: Tensor, queries: Tensor, classifier: str, classes: int) -> Tensor:
    """Ranked classes (n, R) of unit vectors.

    Args:
        shots: (N, D) with labels (N,); queries: (n, D).
    """
    if classifier == "knn":
        count = len(shots)
        return knn_predict(queries, shots, labels, classes=classes, ks=(count,), temperature=TEMPERATURE)[0]
    if classifier == "logistic":
        return fit_logistic(shots, labels, strength=STRENGTH, intercept=False).ranked(queries)
    present: Tensor
    present, places = torch.unique(labels, return_inverse=True)
    sums = shots.new_zeros(len(present), shots.shape[1]).index_add_(0, places, shots)
    similarity = queries @ F.normalize(sums, dim=1).T  # (n, C)
    return present[similarity.argsort(dim=1, descending=True, stable=True)[:, :5]]


def over_draws(found: list[Scores]) -> Scores:
    """Means over draws; the interval is that of the mean of top-1."""
    means = {name: float(np.mean([score[name] for score in found])) for name in found[0]}
    top1 = [score["top1"] for score in found]
    half = float(stats.t.ppf(0.975, len(top1) - 1) * stats.sem(top1))
    return means | {"top1_low": max(0.0, means["top1"] - half), "top1_high": min(1.0, means["top1"] + half)}
