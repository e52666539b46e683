"""J and F of video object segmentation, as the official evaluator of DAVIS-2017 computes them.

Semi-supervised protocol (Pont-Tuset et al., arXiv:1704.00675; davisvideochallenge/davis2017-evaluation, `metrics.py`
and `evaluation.py`): the first and the last frame are left out, numbers are taken over frames for each object, and then
over objects. One deviation: that evaluator keeps the edges of the bins of the decay in 8 bits, which fails beyond 256
frames.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from polygrain.data.davis import check_size

TOLERANCE = 0.008  # of the diagonal: how far two boundaries may lie apart
VOID = 255
Flags = NDArray[np.bool_]
Floats = NDArray[np.float64]


class Statistics(NamedTuple):
    """What one object's values over time come to."""

    mean: float
    recall: float  # share of frames above 0.5
    decay: float  # mean of the first quarter less that of the last


class ObjectScores(NamedTuple):
    """J and F of one object in each frame but the first and the last."""

    region: Floats  # (T - 2,) J
    boundary: Floats  # (T - 2,) F


def region_similarity(first: Flags, second: Flags) -> float:
    """J of two masks (H, W): intersection over union, 1 where both are empty."""
    union = np.count_nonzero(first | second)
    return np.count_nonzero(first & second) / union if union else 1.0


def boundary_map(mask: Flags) -> Flags:
    """Pixels (H, W) that differ from their neighbour to the right, below, or right below; the image has no border."""
    edges = np.zeros_like(mask)
    edges[:, :-1] |= mask[:, :-1] != mask[:, 1:]
    edges[:-1] |= mask[:-1] != mask[1:]
    edges[:-1, :-1] |= mask[:-1, :-1] != mask[1:, 1:]
    return edges


def boundary_accuracy(first: Flags, second: Flags) -> float:
    """F of two masks (H, W): harmonic mean of the shares of each boundary that lie within a disk of the other's."""
    edges = boundary_map(first), boundary_map(second)
    found = [edge.any() for edge in edges]
    if not all(found):
        return 0.0 if any(found) else 1.0
    reach = math.ceil(TOLERANCE * math.hypot(*first.shape))
    one, other = (np.argwhere(edge) for edge in edges)
    precision, recall = _share_near(one, other, reach), _share_near(other, one, reach)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def statistics(values: Floats) -> Statistics:
    """Mean, recall and decay of one value for each frame (T,)."""
    edges = np.round(np.linspace(1, len(values), 5) + 1e-10).astype(np.int64) - 1
    first, last = values[edges[0] : edges[1] + 1], values[edges[3] : edges[4] + 1]  # quarters share their edge
    return Statistics(float(values.mean()), float((values > 0.5).mean()), float(first.mean() - last.mean()))


def score_video(predicted: NDArray[np.uint8], truth: NDArray[np.uint8], name: str = "the video") -> list[ObjectScores]:
    """Both (T, H, W) object ids; one entry for each id from 1 to the largest in the first frame of `truth`.

    Pixels of `truth` that are 255 count as background. Objects that are not predicted score as empty masks.

    Raises:
        ValueError: when sizes or lengths differ, there are fewer than three frames or no object, or more ids are
            predicted than there are objects.
    """
    if len(predicted) != len(truth):
        raise ValueError(f"{name}: {len(predicted)} frames are predicted and {len(truth)} have masks")
    check_size(f"the prediction of {name}", predicted.shape[1:], "its masks", truth.shape[1:])
    if len(truth) < 3:
        raise ValueError(f"{name} has {len(truth)} frames; as the first and the last do not count, 3 are needed")
    void = (truth[0] == VOID).any()
    truth = np.where(truth == VOID, 0, truth)
    objects = int(truth[0].max())
    if not objects:
        only = "background or void (255); DAVIS-2016 has 255 for the object: write it as 1" if void else "background"
        raise ValueError(f"the first mask of {name} holds no object: all its pixels are {only}")
    if (largest := int(predicted[1:-1].max())) > objects:
        raise ValueError(f"{name}: object {largest} is predicted, and there are {objects} objects")
    pairs = [(predicted[t], truth[t]) for t in range(1, len(truth) - 1)]
    return [
        ObjectScores(
            np.array([region_similarity(p == i, g == i) for p, g in pairs]),
            np.array([boundary_accuracy(p == i, g == i) for p, g in pairs]),
        )
        for i in range(1, objects + 1)
    ]


def summarise(objects: Sequence[ObjectScores]) -> dict[str, float]:
    """The seven numbers of DAVIS, means over objects."""
    region = np.mean([statistics(scores.region) for scores in objects], axis=0)
    boundary = np.mean([statistics(scores.boundary) for scores in objects], axis=0)
    names = (f"{measure}_{name}" for measure in ("J", "F") for name in Statistics._fields)
    return {
        "J&F": float(region[0] + boundary[0]) / 2,
        **dict(zip(names, [*region.tolist(), *boundary.tolist()], strict=True)),
    }


def _share_near(points: NDArray[np.int64], others: NDArray[np.int64], reach: int) -> float:
    """Share of the points (n, 2) that lie within `reach` of one of the others."""
    distance, _ = KDTree(others).query(points, distance_upper_bound=reach + 1)
    return float((distance <= reach).mean())
