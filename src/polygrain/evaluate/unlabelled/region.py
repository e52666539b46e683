"""Regions: what the patch vectors of one image tell apart, and whether they follow what is shown or where."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from polygrain.losses.matching import location_distances
from polygrain.views import patch_centres

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 1e3)  # in mean variances of a feature


def patch_ranks(patches: Tensor) -> Tensor:
    """Effective rank of the patch vectors (B, N, D) of each image around their mean: (B,) float64.

    exp H(sigma / sum sigma) with sigma the singular values: 1 when patches differ along one direction, at most
    min(N - 1, D); 0 when all patches of the image are the same.
    """
    rows = patches.double()
    rows = rows - rows.mean(1, keepdim=True)
    size = patches.double().square().mean((1, 2)).sqrt() * patches[0].numel() ** 0.5
    sigma = torch.linalg.svdvals(rows)
    sigma = torch.where(sigma > 1e-6 * size[:, None], sigma, 0.0)  # float32 tells no less apart
    share = sigma / sigma.sum(1, keepdim=True).clamp_min(1e-300)
    ranks: Tensor = torch.exp(torch.special.entr(share).sum(1))
    return torch.where(sigma.sum(1) > 0, ranks, 0.0)


class Side(NamedTuple):
    """One of two crops of each image of a batch."""

    patches: Tensor  # (B, N, D) row-major
    grid: tuple[int, int]  # rows, columns
    box: Tensor  # (B, 4) top, left, height, width, in source-image pixels
    flipped: Tensor  # (B,) bool

    def centres(self) -> Tensor:
        return patch_centres(self.box, self.flipped, *self.grid)  # (B, N, 2)


class Agreement(NamedTuple):
    """How well patches of one crop find their place in another; NaN where the crops share nothing."""

    found: Tensor  # (B,) share of the shared patches whose most similar patch is the one at the same place
    chance: Tensor  # (B,) of a patch drawn at random
    same: Tensor  # (B,) mean cosine of two patches at the same place
    other: Tensor  # (B,) and at different places


def crop_agreement(a: Side, b: Side, reach: float = 0.0) -> Agreement:
    """Compares each patch of `a` whose centre lies in crop `b` with all patches of `b`.

    At the same place is the patch of `b` that holds this centre, and with `reach` those up to so many cells away in
    either axis. With equal cosines the first patch counts.
    """
    own, theirs = a.centres(), b.centres()
    top, left, height, width = b.box.double().unbind(1)
    cell = torch.stack([height / b.grid[0], width / b.grid[1]], 1)  # (B, 2)
    low, high = torch.stack([top, left], 1), torch.stack([top + height, left + width], 1)
    shared = ((own >= low[:, None]) & (own <= high[:, None])).all(2)  # (B, N)
    away = (own.double()[:, :, None] - theirs.double()[:, None]).abs() / cell[:, None, None]  # (B, N, M, 2)
    near = away.amax(3) <= reach + 0.5 + 1e-6  # (B, N, M)
    at = location_distances(own.double() / cell[:, None], theirs.double() / cell[:, None]).argmin(2)  # (B, N)
    cosine = F.normalize(a.patches.double(), dim=2) @ F.normalize(b.patches.double(), dim=2).transpose(1, 2)
    hit = near.gather(2, cosine.argmax(2, keepdim=True))[..., 0]
    same = cosine.gather(2, at[..., None])[..., 0]
    other = (cosine.sum(2) - same) / max(1, cosine.shape[2] - 1)
    counts = shared.sum(1)  # 0 / 0 is NaN

    def mean(values: Tensor) -> Tensor:
        return (values.double() * shared).sum(1) / counts

    return Agreement(mean(hit), mean(near.double().mean(2)), mean(same), mean(other))


class Leak(NamedTuple):
    """Squared errors of predicted places, image by image of those held out."""

    error: Tensor  # (n,) sum over patches and axes
    total: Tensor  # (n,) the same for the mean place of the training images

    @property
    def r2(self) -> float:
        return float(1 - self.error.sum() / self.total.sum())


def position_leak(patches: Tensor, places: Tensor) -> Leak:
    """How well a ridge regression reads the place of a patch in its grid off the patch vector, on other images.

    Fitted on the first half of the images and judged on the second; the penalty is the one that serves the last
    quarter of the first half best when fitted on the rest of it.

    Args:
        patches: (n, P, D) some patches of each image.
        places: (n, P, 2) where they lie.
    """
    half, inner = len(patches) // 2, len(patches) * 3 // 8
    best = min(
        PENALTIES,
        key=lambda penalty: float(_errors(patches[:half], places[:half], inner, penalty).error.sum()),
    )
    return _errors(patches, places, half, best)


def _errors(patches: Tensor, places: Tensor, fitted: int, penalty: float) -> Leak:
    """Of all images after the first `fitted`."""
    x, y = patches[:fitted].flatten(0, 1).double(), places[:fitted].flatten(0, 1).double()
    mean_x, mean_y = x.mean(0), y.mean(0)
    x, y = x - mean_x, y - mean_y
    gram = x.T @ x
    gram.diagonal().add_(penalty * gram.diagonal().mean().clamp_min(1e-300))
    weights = torch.linalg.solve(gram, x.T @ y)  # (D, 2)
    predicted = (patches[fitted:].double() - mean_x) @ weights + mean_y
    truth = places[fitted:].double()
    return Leak((truth - predicted).square().sum((1, 2)), (truth - mean_y).square().sum((1, 2)))
