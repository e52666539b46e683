"""Which view is compared with which, and how much each comparison counts."""

import torch
from torch import Tensor


def pair_weights(targets: int, views: int, large: int) -> Tensor:
    """Weights of the comparisons of V student views with T teacher views; they add up to 1.

    The mean over pairs with a large student view and the mean over pairs with a small one count half each, so that
    one large pair weighs as much as many small ones (Mugs, arXiv:2203.14415, official code). A pair of the same
    index is left out, as in DINO (arXiv:2104.14294), though in Mugs the two are different crops.

    Without small views the mean over large pairs stands alone. The official code divides by zero there; the plain
    mean is DINO's, and keeps the scale of the loss.

    Args:
        large: how many of the student's views, the first ones, are large.

    Returns:
        (T, V) float32, 0 where target and view have the same index.
    """
    compared = ~torch.eye(targets, views, dtype=torch.bool)
    is_large = (torch.arange(views) < large).expand(targets, -1)
    weights = torch.zeros(targets, views)
    groups = [group for group in (compared & is_large, compared & ~is_large) if group.any()]
    for group in groups:
        weights[group] = 1 / (len(groups) * int(group.sum()))
    return weights
