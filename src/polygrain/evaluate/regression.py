"""Multinomial logistic regression and ridge classification on features in memory, to the optimum."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK_BYTES = 2**28  # of logits or features at once
MOST_ITERATIONS, GRADIENT_BELOW, CHANGE_BELOW = 1000, 1e-8, 1e-14
STEPS_KEPT = 100  # by L-BFGS, where they fit into CHUNK_BYTES; 10 at least
SOLVED_BELOW = 1e-6  # the largest gradient


class Classifier(NamedTuple):
    """A linear classifier of the classes it has seen."""

    weight: Tensor  # (K, D) float64
    bias: Tensor  # (K,)
    classes: Tensor  # (K,) long, which class each row is of
    solved: bool = True  # to the optimum

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

    Returns:
        The classifier; not `solved` where 1,000 iterations have not brought the gradient to zero.
    """
    classes, places = torch.unique(labels, return_inverse=True)
    frame = _frame(features, intercept, least=len(classes) * strength / len(features))
    first = frame.mean.new_zeros(len(classes), features.shape[1]) if start is None else start.weight
    weight, bias = frame.entered(first), first @ frame.mean + (0 if start is None else start.bias)
    solver = torch.optim.LBFGS(
        [weight, bias] if intercept else [weight],
        max_iter=MOST_ITERATIONS,
        history_size=min(STEPS_KEPT, max(10, CHUNK_BYTES // (16 * weight.numel()))),
        tolerance_grad=GRADIENT_BELOW,
        tolerance_change=CHANGE_BELOW,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        value, by_weight, bias.grad = _loss(frame.left(weight), bias, frame.mean, features, places, strength)
        weight.grad = frame.left(by_weight)
        return value

    solver.step(loss)  # type: ignore[no-untyped-call]  # torch gives it no types
    loss()
    largest = max(float(each.grad.abs().max()) for each in solver.param_groups[0]["params"])
    found = frame.left(weight)
    return Classifier(found, bias - found @ frame.mean, classes, largest <= SOLVED_BELOW)


class _Frame(NamedTuple):
    """Coordinates in which no direction is much steeper than another: a common offset of features holds L-BFGS up.

    The optimum stays where it is: W' = W S^-1 are weights of features S (x - mean), with S symmetric, and the penalty
    is that of W.
    """

    mean: Tensor  # (D,) taken off the features and put back into the bias; 0 without one
    axis: Tensor  # (D,) of length 1, along which S shrinks features
    shrink: Tensor  # () by so much, and then divides them
    length: Tensor  # () by this

    def entered(self, weight: Tensor) -> Tensor:
        """W' (K, D) of W."""
        return (weight - (1 - 1 / self.shrink) * torch.outer(weight @ self.axis, self.axis)) * self.length

    def left(self, weight: Tensor) -> Tensor:
        """W (K, D) of W', and the gradient by W' of that by W."""
        return (weight - (1 - self.shrink) * torch.outer(weight @ self.axis, self.axis)) / self.length


def _frame(features: Tensor, intercept: bool, least: float) -> _Frame:
    """With an intercept the mean is taken off; without one its direction shrinks to the spread of the others.

    Args:
        least: square of a length below which the penalty is steeper than the cross-entropy.
    """
    mean = features.sum(0, dtype=torch.float64) / len(features)
    squares = [(rows.to(mean) - mean).square().sum() for rows in torch.split(features, 8192)]
    length, offset = (torch.stack(squares).sum() / len(features) + least).sqrt(), mean.norm()
    if intercept or length >= offset:
        return _Frame(mean * intercept, torch.zeros_like(mean), torch.ones_like(length), length)
    return _Frame(torch.zeros_like(mean), mean / offset, length / offset, length)


@torch.no_grad()
def _loss(
    weight: Tensor, bias: Tensor, mean: Tensor, features: Tensor, labels: Tensor, strength: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The objective and its gradients by weight and bias, of features less their mean."""
    value, by_weight, by_bias = bias.new_zeros(()), torch.zeros_like(weight), torch.zeros_like(bias)
    rows = max(1, CHUNK_BYTES // (8 * max(weight.shape)))
    for some, truth in zip(torch.split(features, rows), torch.split(labels, rows), strict=True):
        vectors = some.to(weight) - mean
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
