"""Numbers out of predictions."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Scores = dict[str, float]
RESAMPLES = 1000


def classification_scores(ranked: Tensor, truth: Tensor, *, seed: int = 0) -> Scores:
    """Top-1 with its 95 % interval, mean over classes, and top-5 where five classes are ranked.

    Args:
        ranked: (B, R) classes, most likely first.
        truth: (B,) long.

    Returns:
        Shares in [0, 1]: "top1", "top1_low", "top1_high", "per_class" (mean of the classes that occur), "top5".
    """
    hit = ranked == truth[:, None]  # (B, R)
    right = hit[:, 0].double()
    low, high = bootstrap_interval(right.mean().item(), len(right), seed=seed)
    totals = torch.bincount(truth)
    per_class = torch.bincount(truth, weights=right)[totals > 0] / totals[totals > 0]
    scores = {"top1": right.mean().item(), "top1_low": low, "top1_high": high, "per_class": per_class.mean().item()}
    if ranked.shape[1] >= 5:
        scores["top5"] = hit[:, :5].any(dim=1).double().mean().item()
    return scores


def right(ranked: Tensor, truth: Tensor) -> NDArray[np.float64]:
    """1 where the first of the ranked classes (B, R) is the true one (B,), else 0: (B,)."""
    return (ranked[:, 0] == truth).double().cpu().numpy()


def bootstrap_interval(share: float, count: int, *, seed: int = 0) -> tuple[float, float]:
    """95 % interval of a share of right answers, from 1,000 bootstrap resamples of the `count` items.

    Drawing `count` items with replacement out of right and wrong ones is one binomial draw.
    """
    resamples = np.random.default_rng(seed).binomial(count, share, RESAMPLES) / count
    low, high = np.percentile(resamples, [2.5, 97.5])
    return float(low), float(high)


def confusion_matrix(predicted: Tensor, truth: Tensor, classes: int, *, ignore: int | None = None) -> Tensor:
    """Counts (C, C) with true classes in rows, of tensors of any one shape; what is truly `ignore` does not count."""
    predicted, truth = predicted.flatten().long(), truth.flatten().long()
    if ignore is not None:
        kept = truth != ignore
        predicted, truth = predicted[kept], truth[kept]
    return torch.bincount(truth * classes + predicted, minlength=classes**2).view(classes, classes)


def intersection_over_union(confusion: Tensor) -> Tensor:
    """TP / (TP + FP + FN) of each class (C,), NaN for classes that occur neither in truth nor in prediction."""
    counts = confusion.double()
    right = counts.diagonal()
    return right / (counts.sum(0) + counts.sum(1) - right)


def segmentation_scores(confusion: Tensor) -> Scores:
    """From one confusion matrix of the whole set: "miou" (mean over the classes that occur) and "pixel_accuracy"."""
    counts = confusion.double()
    return {
        "miou": intersection_over_union(confusion).nanmean().item(),
        "pixel_accuracy": (counts.diagonal().sum() / counts.sum()).item(),
    }
