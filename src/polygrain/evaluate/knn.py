"""Weighted nearest-neighbour classification as in DINO (arXiv:2104.14294, official `eval_knn.py`)."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from polygrain.evaluate.labelled import labelled_features, summary
from polygrain.evaluate.metrics import Scores, classification_scores, right
from polygrain.evaluate.result import Result
from polygrain.evaluate.sampling import Sample
from polygrain.evaluate.settings import KnnSettings
from polygrain.losses.neighbours import knn_predict


def evaluate_knn(model: Any, data: Any, val: Any, settings: KnnSettings | None = None) -> Result:
    """Classifies the images of `val` by the votes of their nearest neighbours in `data`.

    Args:
        model: a run, a backbone file, "timm:NAME", "random:NAME", "pixels", or an encoder.
        data: labelled training images: a folder, shards, or a map-style dataset.

    Raises:
        ValueError: when something handed in cannot be used, in one line.
    """
    settings = settings or KnnSettings()
    seen = labelled_features(model, data, val, settings)
    ks = sorted({min(k, len(seen.train)) for k in settings.k})
    notes = seen.notes
    if max(settings.k) > len(seen.train):
        notes += (f"k above the {len(seen.train)} training images was lowered to {len(seen.train)}",)
    ranked = knn_predict(
        seen.val, seen.train, seen.train_labels, classes=seen.classes, ks=ks, temperature=settings.temperature
    )
    by_k = {f"k={k}": rows if k >= 5 else rows[:, :1] for k, rows in zip(ks, ranked, strict=True)}
    return Result(
        protocol="knn",
        description=(
            "Weighted kNN (DINO): cosine similarity of un-augmented features, "
            f"votes exp(cosine / {settings.temperature}), ties to the lowest class id; "
            "95 % interval from 1,000 bootstrap resamples"
        ),
        scores={k: classification_scores(rows, seen.val_labels, seed=settings.seed) for k, rows in by_k.items()},
        facts={**seen.facts, "k": ks},
        model=seen.model,
        details=seen.details,
        notes=notes,
        about=summary(seen),
        items={k: Sample(right(rows, seen.val_labels)) for k, rows in by_k.items()},
    )


def knn_scores(
    train: Tensor,
    train_labels: Tensor,
    val: Tensor,
    val_labels: Tensor,
    *,
    classes: int,
    ks: Sequence[int] = (20,),
    temperature: float = 0.07,
    seed: int = 0,
) -> dict[str, Scores]:
    """Scores by "k=20" and so on, of features that are there already.

    Args:
        train: (N, D) and val: (n, D), with labels (N,) and (n,).
        ks: rising, each at most N; below 5 there is no top-5.
    """
    ranked = knn_predict(val, train, train_labels, classes=classes, ks=ks, temperature=temperature)
    return {
        f"k={k}": classification_scores(rows if k >= 5 else rows[:, :1], val_labels, seed=seed)
        for k, rows in zip(ks, ranked, strict=True)
    }
