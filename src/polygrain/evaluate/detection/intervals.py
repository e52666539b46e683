"""How sure an average precision is: what resampled test images would give."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
RESAMPLES, AT_ONCE = 200, 20  # AP of many images is slow


class Found(NamedTuple):
    """What is known of one category, most certain detections first."""

    images: NDArray[np.int64]  # (D,) of the detections
    right: NDArray[np.bool_]  # (T, D) at each overlap asked for
    wrong: NDArray[np.bool_]  # (T, D); neither where a detection does not count
    objects: Floats  # (I,) to be found in each image


def ap_interval(judge: Any, *, seed: int = 0) -> tuple[float, float]:
    """95 % interval of AP over all sizes from 200 bootstrap resamples of the images.

    Args:
        judge: a COCOeval that was evaluated.
    """
    categories = [*by_category(judge)]
    count, random = len(judge.params.imgIds), np.random.default_rng(seed)
    drawn = random.multinomial(count, np.full(count, 1 / count), RESAMPLES)  # (R, I)
    resampled = [
        average_precision(categories, times, judge.params.recThrs) for times in np.split(drawn, RESAMPLES // AT_ONCE)
    ]
    low, high = np.nanpercentile(np.concatenate(resampled), [2.5, 97.5])
    return float(low), float(high)


def by_category(judge: Any) -> Iterator[Found]:
    """Matches that pycocotools made, for objects of all sizes and the most detections an image."""
    images, areas = len(judge.params.imgIds), len(judge.params.areaRng)
    for k in range(len(judge.params.catIds)):
        start = k * areas * images  # objects of all sizes come first
        told = [(i, one) for i, one in enumerate(judge.evalImgs[start : start + images]) if one is not None]
        if not told:
            continue
        objects = np.zeros(images)
        for i, one in told:
            objects[i] = np.count_nonzero(one["gtIgnore"] == 0)
        where = np.concatenate([np.full(len(one["dtScores"]), i) for i, one in told])
        order = np.argsort(-np.concatenate([one["dtScores"] for _, one in told]), kind="mergesort")
        matched = np.concatenate([one["dtMatches"] for _, one in told], axis=1)[:, order] > 0
        counts = ~np.concatenate([one["dtIgnore"] for _, one in told], axis=1)[:, order].astype(bool)
        yield Found(where[order].astype(np.int64), matched & counts, ~matched & counts, objects)


def average_precision(categories: list[Found], times: NDArray[np.int64], recalls: Floats) -> Floats:
    """COCO's AP (R,) of images that are there so many times (R, I): mean over overlaps and categories with objects.

    As pycocotools has it: at each of the recalls 0, 0.01 ... 1 the best precision from there on, 0 where none is.
    """
    sums, there = np.zeros(len(times)), np.zeros(len(times))
    for found in categories:
        objects = times @ found.objects  # (R,)
        weights = times[:, None, found.images]  # (R, 1, D)
        right = np.cumsum(weights * found.right, axis=2)  # (R, T, D)
        wrong = np.cumsum(weights * found.wrong, axis=2)
        best = np.maximum.accumulate((right / np.maximum(right + wrong, 1))[..., ::-1], axis=2)[..., ::-1]
        recall = right / np.maximum(objects, 1)[:, None, None]
        last = np.floor(recall * (len(recalls) - 1) + 1e-9).astype(np.int64)
        reached = last + (recalls[last] <= recall)  # of the recalls asked for
        sums += (objects > 0) * (np.diff(reached, axis=2, prepend=0) * best).sum(2).mean(1) / len(recalls)
        there += objects > 0
    return np.where(there > 0, sums / np.maximum(there, 1), np.nan)
