"""Instances: which changes of an image its vector ignores, and whether a changed image still finds itself."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from polygrain.losses.neighbours import nearest

Floats = NDArray[np.float64]
FLOOR = 0.01  # of the largest variance, added to all


def whitening(plain: Tensor) -> Callable[[Tensor], Tensor]:
    """Takes the mean of the rows (N, D) away and scales their principal directions to about equal variance.

    Without it one direction that varies most, as brightness does in an untrained network, decides every comparison.
    """
    rows = plain.double()
    mean = rows.mean(0)
    variances, directions = torch.linalg.eigh((rows - mean).T @ (rows - mean) / len(rows))
    scaled = directions * (variances.clamp_min(0) + FLOOR * variances.max()).rsqrt()
    return lambda vectors: (vectors.double() - mean) @ scaled


def cosines_to_self_and_others(changed: Tensor, plain: Tensor) -> Floats:
    """(M, 2): cosine of each changed image to itself, and mean cosine of the same image, unchanged, to all others.

    Args:
        changed: (M, D) of the first M images of `plain` (N, D).
    """
    unit = F.normalize(plain.double(), dim=1)
    own = unit[: len(changed)]
    same = (F.normalize(changed.double(), dim=1) * own).sum(1)
    others = (own @ unit.sum(0) - own.square().sum(1)) / (len(unit) - 1)
    return np.stack([same.numpy(), others.numpy()], axis=1)


def ignored(means: Floats) -> Floats:
    """How far a change is ignored, from mean cosines (..., 2) to self and to others: (self - others) / (1 - others).

    1 when the vector keeps its direction, 0 when the changed image is as different as another image.
    """
    return (means[..., 0] - means[..., 1]) / (1 - means[..., 1])


def found(changed: Tensor, plain: Tensor) -> Floats:
    """(M,) 1 where the image nearest to a changed one by cosine is that image itself.

    Args:
        changed: (M, D) of the first M images of `plain` (N, D).
    """
    first = nearest(changed, plain, 1).rows[:, 0]
    right: Floats = (first.numpy() == np.arange(len(changed))).astype(np.float64)
    return right
