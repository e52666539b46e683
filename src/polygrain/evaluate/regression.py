"""Multinomial logistic regression and ridge classification on features in memory, to the optimum."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK_BYTES = 2**28  # of logits computed at once
MOST_ITERATIONS, GRADIENT_BELOW = 1000, 1e-7


class Classifier(NamedTuple):
    """A linear classifier of the classes it has seen."""

    weight: Tensor  # (K, D) float64
    bias: Tensor  # (K,)
    classes: Tensor  # (K,) long, which class each row is of

    def ranked(self, features: Tensor, top: int = 5) -> Tensor:
        """The most likely classes (n, top) of features (n, D), of equals the lowest first."""
        order = self.logits(features).argsort(dim=1, descending=True, stable=True)[:, :top]
        return self.classes[order]

    def logits(self, features: Tensor) -> Tensor:
        """(n, K) float64."""
        return torch.cat(
            [F.linear(rows.to(self.weight), self.weight, self.bias) for rows in torch.split(features, 8192)]
        )


def fit_logistic(
    features: Tensor, labels: Tensor, *, strength: float, intercept: bool, start: Classifier | None = None
) -> Classifier:
    """Minimises mean cross-entropy + strength |W|^2 / (2 n), by L-BFGS in float64.

    That is scikit-learn's `LogisticRegression` with C = 1 / strength, and the logistic regression of iBOT and Mugs
    (official `eval_logistic_regression.py`) with lambda = strength.

    Args:
        features: (n, D).
        labels: (n,) long; only classes that occur become rows.
        start: a solution for another strength.
    """
    classes, places = torch.unique(labels, return_inverse=True)
    shape = (len(classes), features.shape[1])
    weight = features.new_zeros(shape, dtype=torch.float64) if start is None else start.weight.clone()
    bias = weight.new_zeros(len(classes)) if start is None else start.bias.clone()
    solver = torch.optim.LBFGS(
        [weight, bias] if intercept else [weight],
        max_iter=MOST_ITERATIONS,
        history_size=10,
        tolerance_grad=GRADIENT_BELOW,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        value, weight.grad, bias.grad = _loss(weight, bias, features, places, strength)
        return value

    solver.step(loss)  # type: ignore[no-untyped-call]  # torch gives it no types
    return Classifier(weight, bias, classes)


@torch.no_grad()
def _loss(
    weight: Tensor, bias: Tensor, features: Tensor, labels: Tensor, strength: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The objective and its gradients by weight and bias."""
    value, by_weight, by_bias = bias.new_zeros(()), torch.zeros_like(weight), torch.zeros_like(bias)
    rows = max(1, CHUNK_BYTES // (8 * len(weight)))
    for some, truth in zip(torch.split(features, rows), torch.split(labels, rows), strict=True):
        vectors = some.to(weight)
        log = F.linear(vectors, weight, bias).log_softmax(dim=1)  # (n, K)
        value -= log.gather(1, truth[:, None]).sum()
        by_logits = log.exp_()
        by_logits[torch.arange(len(truth), device=truth.device), truth] -= 1
        by_weight += by_logits.T @ vectors
        by_bias += by_logits.sum(0)
    count = len(labels)
    return (
        (value + 0.5 * strength * weight.square().sum()) / count,
        (by_weight + strength * weight) / count,
        by_bias / count,
    )


def fit_ridge(features: Tensor, labels: Tensor, strengths: Sequence[float]) -> list[Classifier]:
    """Least squares to +1 for the class and -1 for the others, with penalty strength |W|^2: one for each strength.

    scikit-learn's `RidgeClassifier`; one eigendecomposition serves all strengths.

    Args:
        features: (n, D); labels: (n,) long.
    """
    classes, places = torch.unique(labels, return_inverse=True)
    vectors = features.double()
    targets = 2 * F.one_hot(places, len(classes)).double() - 1  # (n, K)
    mean, offset = vectors.mean(0), targets.mean(0)
    vectors = vectors - mean
    values, directions = torch.linalg.eigh(vectors.T @ vectors)
    projected = directions.T @ (vectors.T @ (targets - offset))  # (D, K)
    found = []
    for strength in strengths:
        weight = (directions @ (projected / (values[:, None] + strength))).T  # (K, D)
        found.append(Classifier(weight, offset - weight @ mean, classes))
    return found
