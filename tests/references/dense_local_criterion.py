"""VICRegL's local criterion in the straightforward way: one pair of views, one direction, one match at a time.

Written from the paper's text (arXiv:2210.01571, sec. 3) with plain autograd: every covariance is a D x D matrix that
autograd keeps, and every criterion call matches and compares anew. Slow, and easy to hold beside the text.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

Terms = tuple[Tensor, Tensor, Tensor]


def local_criterion(
    maps: Sequence[Tensor],
    centres: Sequence[Tensor],
    num_matches: tuple[int, int] = (20, 4),
    *,
    feature: bool = True,
    location: bool = True,
    all_feature_matches: bool = True,
) -> Terms:
    """Invariance, variance, covariance with coefficients 25, 25, 1; maps (N, P, D), centres (N, P, 2) of V views."""
    pairs = [(i, j) for i in (0, 1) for j in range(len(maps)) if j != i]
    totals = torch.stack([maps[0].new_zeros(()) for _ in range(3)])
    for i, j in pairs:
        for a, b, count in ((i, j, num_matches[0]), (j, i, num_matches[1])):
            if feature:
                kept = maps[a].shape[1] if all_feature_matches else count
                totals = totals + torch.stack(matched_terms(maps[a], maps[b], maps[a], maps[b], kept)) / 2
            if location:
                totals = totals + torch.stack(matched_terms(maps[a], maps[b], centres[a], centres[b], count)) / 2
    inv, var, cov = (totals / len(pairs)).unbind()
    return inv, var, cov


def matched_terms(a: Tensor, b: Tensor, place_a: Tensor, place_b: Tensor, count: int) -> Terms:
    distances = (place_a.detach()[:, :, None] - place_b.detach()[:, None]).square().sum(-1).sqrt()  # (N, P, Q)
    x_rows, y_rows = [], []
    for image in range(len(a)):
        nearest = [int(distances[image, p].argmin()) for p in range(a.shape[1])]
        order = sorted(range(a.shape[1]), key=lambda p, n=nearest, i=image: (float(distances[i, p, n[p]]), p))
        kept = sorted(order[:count])
        x_rows.append(a[image, kept])
        y_rows.append(b[image, [nearest[p] for p in kept]])
    return pair_terms(torch.stack(x_rows), torch.stack(y_rows))


def pair_terms(x: Tensor, y: Tensor) -> Terms:
    """(N, M, D) each; statistics over N for every slot m."""
    (var_x, cov_x), (var_y, cov_y) = statistics(x), statistics(y)
    return 25 * (x - y).square().mean(), 25 * (var_x + var_y) / 2, (cov_x + cov_y) / 2


def statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    images, slots, dim = x.shape
    x = x - x.mean(0)
    hinge = torch.relu(1 - torch.sqrt(x.var(0) + 1e-4)).mean()
    covariance = x.transpose(0, 1).mT @ x.transpose(0, 1) / (images - 1)  # (M, D, D)
    off_diagonal = covariance - torch.diag_embed(covariance.diagonal(dim1=1, dim2=2))
    return hinge, off_diagonal.square().sum() / dim / slots
