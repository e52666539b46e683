"""Instances: which changes of an image its vector ignores, and whether a changed image still finds itself."""

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from polygrain.losses.neighbours import nearest

Floats = NDArray[np.float64]


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
