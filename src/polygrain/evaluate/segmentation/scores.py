"""Numbers out of segmented images: one confusion matrix of the whole set, and what each image adds to it."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from polygrain.evaluate.metrics import Scores, confusion_matrix
from polygrain.evaluate.sampling import Sample
from polygrain.evaluate.segmentation.sets import VOID


class Tally(NamedTuple):
    """What n segmented images show."""

    confusion: NDArray[np.float64]  # (C, C) true classes in rows
    images: NDArray[np.float64]  # (n, 3, C) pixels of each class that are right, true, predicted


def tally(segmented: list[tuple[Tensor, Tensor]], classes: int) -> Tally:
    """Counts pixels.

    Args:
        segmented: for each image the predicted and the true classes (H, W), VOID where they do not count.
    """
    return joined([count(predicted, truth, classes) for predicted, truth in segmented])


def count(predicted: Tensor, truth: Tensor, classes: int) -> Tally:
    """Counts the pixels of one image."""
    confusion = confusion_matrix(predicted, truth, classes, ignore=VOID).double().cpu().numpy()
    return Tally(confusion, np.stack([confusion.diagonal(), confusion.sum(1), confusion.sum(0)])[None])


def joined(tallies: list[Tally]) -> Tally:
    return Tally(np.sum([one.confusion for one in tallies], axis=0), np.concatenate([one.images for one in tallies]))


def means(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean IoU, share of right pixels and mean share of right pixels by class (..., 3), of sums or means (..., 3, C).

    IoU is TP / (TP + FP + FN), its mean goes over the classes that are there or are predicted, that of the shares over
    those that are there.
    """
    right, true, predicted = np.moveaxis(sums, -2, 0)  # (..., C)
    union = true + predicted - right
    return np.stack(
        [_mean_of_shares(right, union), _share(right.sum(-1), true.sum(-1)), _mean_of_shares(right, true)],
        axis=-1,
    )


def _mean_of_shares(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(_share(part, whole).sum(-1) / np.maximum((whole > 0).sum(-1), 1))


def _share(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """0 of nothing."""
    return part / np.where(whole > 0, whole, 1)


def scores(found: Tally, *, seed: int = 0) -> Scores:
    """Mean IoU, pixel accuracy and mean class accuracy, the first with its 95 % interval from 1,000 bootstrap resamples
    of the images."""
    _, pixels, by_class = means(found.images.sum(0)).tolist()
    return {**sample(found).estimate(seed=seed).scores("miou"), "pixel_accuracy": pixels, "class_accuracy": by_class}


def sample(found: Tally) -> Sample:
    """What each image contributes to the mean IoU."""
    shape = found.images.shape[1:]
    return Sample(found.images, lambda flat: means(flat.reshape(*flat.shape[:-1], *shape))[..., 0])


def by_class(found: Tally, names: tuple[str, ...]) -> dict[str, Any]:
    """IoU of each class; None for one that is neither there nor predicted."""
    right, true, predicted = found.images.sum(0)
    union = true + predicted - right
    return {name: float(r / u) if u else None for name, r, u in zip(names, right, union, strict=True)}


def mean_iou(found: Tally) -> float:
    return float(means(found.images.sum(0))[0])


def constant(found: Tally) -> bool:
    """Whether every pixel got the same class."""
    return bool((found.images.sum(0)[2] > 0).sum() <= 1)
