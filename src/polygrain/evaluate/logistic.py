"""Logistic regression on frozen features, its penalty chosen on held-out training images."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from polygrain.evaluate.choosing import held_out_rows
from polygrain.evaluate.labelled import labelled_features, summary
from polygrain.evaluate.metrics import classification_scores, right
from polygrain.evaluate.regression import MOST_ITERATIONS, Classifier, fit_logistic, fit_ridge
from polygrain.evaluate.result import Result
from polygrain.evaluate.sampling import Sample
from polygrain.evaluate.settings import LogisticSettings
from polygrain.evaluate.subsets import Choice

STRENGTHS: dict[str, tuple[float, ...]] = {
    "mugs": (0.01, 0.03, 0.06, 0.1, 0.15, 0.2, 0.3),  # arXiv:2203.14415, `eval_logistic_regression.py`
    "ibot": (0.01, 0.1, 1.0),  # arXiv:2111.07832, `eval_logistic_regression.py`
    "dinov2": tuple((10 ** -torch.linspace(-6, 5, 45, dtype=torch.float64)).tolist()),  # `eval/log_regression.py`, 1/C
    "ridge": tuple(10.0**power for power in range(-4, 5)),
}
IN_WORDS = {
    "mugs": "Multinomial logistic regression without intercept on features of length 1, penalty strength |W|^2 / 2n",
    "dinov2": "Multinomial logistic regression with intercept on features as they are, penalty strength |W|^2 / 2n",
    "ridge": "Ridge classifier (least squares to +1 and -1, with intercept) on features as they are",
}


def evaluate_logistic(model: Any, data: Any, val: Any, settings: LogisticSettings | None = None) -> Result:
    """Fits a linear classifier to features of `data`, or of a part of them, to the optimum, and tests it on `val`.

    Args:
        model: a run, a backbone file, "timm:NAME", "random:NAME", "pixels", or an encoder.
        data: labelled training images: a folder, shards, or a map-style dataset.

    Raises:
        ValueError: when something handed in cannot be used, in one line.
    """
    settings = settings or LogisticSettings()
    seen = labelled_features(model, data, val, settings, Choice(settings.share, settings.list)).in_float64()
    strengths = settings.strengths or STRENGTHS[settings.form]
    train, test = seen.train, seen.val
    if settings.form in ("mugs", "ibot"):
        train, test = F.normalize(train, dim=1), F.normalize(test, dim=1)
    chooses, trains = held_out_rows(len(train), settings.held_out, settings.seed, train.device)
    candidates = fit_all(train[trains], seen.train_labels[trains], strengths, settings.form)
    held = [top1(each, train[chooses], seen.train_labels[chooses]) for each in candidates]
    best = max(range(len(held)), key=held.__getitem__)  # of equals the first
    tried = (strengths[best],) if settings.form == "dinov2" else strengths
    refitted = dict(zip(tried, fit_all(train, seen.train_labels, tried, settings.form), strict=True))
    tested = {str(strength): top1(each, test, seen.val_labels) for strength, each in refitted.items()}
    ranked = refitted[strengths[best]].ranked(test)
    scores = classification_scores(ranked, seen.val_labels, seed=settings.seed) | {"top1_held_out": held[best]}
    notes = seen.notes + unsolved([*zip(strengths, candidates, strict=True), *refitted.items()])
    if len(strengths) > 1 and best in (0, len(strengths) - 1):
        notes += (f"the chosen strength {strengths[best]:g} is at the end of those tried; widen strengths",)
    oracle = "" if len(tried) == 1 else "; top1_oracle: the best on the test images, which is no honest score"
    if oracle:
        scores["top1_oracle"] = max(tested.values())
    return Result(
        protocol="ridge" if settings.form == "ridge" else "logistic",
        description=(
            f"{IN_WORDS['mugs' if settings.form == 'ibot' else settings.form]}, frozen and un-augmented; "
            f"of {len(strengths)} strengths the best on {settings.held_out:.0%} of the training images, held out, is "
            f"fitted to all of them and tested once{oracle}"
        ),
        scores={settings.form: scores},
        facts={**seen.facts, "strengths": list(strengths)},
        model=seen.model,
        details={
            **seen.details,
            "strength": strengths[best],
            "held_out_top1": {str(strength): share for strength, share in zip(strengths, held, strict=True)},
            "test_top1": tested,
        },
        notes=notes,
        about=summary(seen),
        items={settings.form: Sample(right(ranked, seen.val_labels))},
    )


def fit_all(features: Tensor, labels: Tensor, strengths: Sequence[float], form: str) -> list[Classifier]:
    """One classifier for each strength; logistic ones start from that of the next stronger penalty."""
    if form == "ridge":
        return fit_ridge(features, labels, strengths)
    found: dict[float, Classifier] = {}
    last = None
    for strength in sorted(strengths, reverse=True):
        last = fit_logistic(features, labels, strength=strength, intercept=form == "dinov2", start=last)
        found[strength] = last
    return [found[strength] for strength in strengths]


def unsolved(fitted: Sequence[tuple[float, Classifier]]) -> tuple[str, ...]:
    """A note on strengths whose classifiers are not at their optimum."""
    short = sorted({strength for strength, classifier in fitted if not classifier.solved})
    if not short:
        return ()
    which = f"strength {short[0]:g}" if len(short) == 1 else f"{len(short)} strengths ({short[0]:g} to {short[-1]:g})"
    return (f"{which} not solved to the optimum in {MOST_ITERATIONS:,} iterations; give larger strengths",)


def top1(classifier: Classifier, features: Tensor, labels: Tensor) -> float:
    return (classifier.ranked(features, 1)[:, 0] == labels).double().mean().item()
