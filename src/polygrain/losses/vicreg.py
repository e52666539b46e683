"""VICReg's criterion: matched vectors agree, each dimension varies over images, no two dimensions correlate.

All functions take the rows of the whole batch (all ranks), compute in float32 or better, and leave out the
coefficients 25, 25, 1 (VICReg, arXiv:2105.04906; local form: VICRegL, arXiv:2210.01571). Gradients are in closed
form, so that a call keeps nothing for the backward pass but its arguments, which calls share.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

EPSILON = 1e-4  # added to the variance inside the square root
CHUNK = {"cpu": 2**20}  # elements that one step over the slots may hold: near the size of a cache
CHUNK_ELSEWHERE = 2**24


class Spread(NamedTuple):
    """How far a batch is from constant and correlated; both 0 at best."""

    variance: Tensor  # () mean over slots and dimensions of max(0, 1 - std)
    covariance: Tensor  # () mean over slots of the squared off-diagonal covariances, summed and divided by D


def full_precision(rows: Tensor) -> Tensor:
    return rows.to(torch.promote_types(rows.dtype, torch.float32))


def invariance(
    x: Tensor, y: Tensor, x_slots: Tensor | None = None, y_slots: Tensor | None = None, weights: Tensor | None = None
) -> Tensor:
    """Mean over all elements of (x - y)^2; the authors' code divides by the dimensions too, the paper does not.

    Args:
        x, y: (N, P, D) and (N, Q, D).
        x_slots, y_slots: (N, M) long, which of the P and Q vectors of each image to compare; None for all.
        weights: (M,) of the slots, each of which counts with its mean over images and dimensions; None for 1 / M.
    """
    x_places, y_places = _places(x, x_slots), _places(y, y_slots)
    x, y = full_precision(x), full_precision(y)
    value: Tensor = _Invariance.apply(x, y, x_places, y_places, _equal_if_none(x, x_places, weights))
    return value


def spread(rows: Tensor, slots: Tensor | None = None, weights: Tensor | None = None) -> Spread:
    """Statistics over the N images, for each slot by itself: never over the positions of one image.

    Args:
        rows: (N, P, D); P = 1 for one vector per image.
        slots: (N, M) long, which of the P vectors of each image fill the M slots; None for all in their order.
        weights: (M,) of the slots; None for 1 / M.

    Raises:
        ValueError: with fewer than two images there is no variance.
    """
    if len(rows) < 2:
        raise ValueError(f"variance and covariance need at least 2 images in a batch; got {len(rows)}")
    places = _places(rows, slots)
    rows = full_precision(rows)
    return Spread(*_Spread.apply(rows, places, _equal_if_none(rows, places, weights)))


def mean_invariance(views: Sequence[Tensor]) -> Tensor:
    """Mean over the ordered pairs (i, j) of views, i one of the first two and j any other.

    Two views make two pairs, (0, 1) and (1, 0), of the same value.

    Args:
        views: V tensors (N, P, D).
    """
    pairs = [(i, j) for i in (0, 1) for j in range(len(views)) if j != i]
    return torch.stack([invariance(views[i], views[j]) for i, j in pairs]).mean()


def mean_spread(views: Sequence[Tensor]) -> Spread:
    """Mean over views (N, P, D), whose P may differ."""
    parts = [spread(view) for view in views]
    return Spread(torch.stack([p.variance for p in parts]).mean(), torch.stack([p.covariance for p in parts]).mean())


class _Invariance(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, x_places: Tensor, y_places: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(x, y, x_places, y_places, weights)
        total = x.new_zeros(())
        for part in _chunks(x, x_places):
            difference = _take(x, x_places[part]) - _take(y, y_places[part])
            total += (difference.square_().mean((1, 2)) * weights[part]).sum()
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        x, y, x_places, y_places, weights = ctx.saved_tensors
        x_gradient, y_gradient = x.new_zeros(x.shape), y.new_zeros(y.shape)
        scale = weights * gradients[0] * (2 / (len(x) * x.shape[2]))  # (M,)
        for part in _chunks(x, x_places):
            difference = _take(x, x_places[part]) - _take(y, y_places[part])
            difference *= scale[part, None, None]
            _give(x_gradient, x_places[part], difference)
            _give(y_gradient, y_places[part], difference.neg_())
        return x_gradient, y_gradient, None, None, None


class _Spread(torch.autograd.Function):
    """With X (N, D) the centred rows of a slot, C = X'X / (N - 1), v its diagonal, s = sqrt(v + eps).

    sum of C_ij^2 over i != j is ||X'X||^2 / (N - 1)^2 - ||v||^2, and ||X'X|| = ||XX'||: the smaller of the two
    products serves, so that a batch of 64 never makes a 512 x 512 (or 8192 x 8192) matrix.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, places: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(rows, places, weights)
        hinge, energy = rows.new_zeros(()), rows.new_zeros(())
        with torch.autocast(rows.device.type, enabled=False):
            for part in _chunks(rows, places):
                x, variance = _centred(rows, places[part])
                product = _product(x).div_(len(rows) - 1)
                off_diagonal = product.square_().sum((1, 2)) - variance.square().sum(1)  # (M,)
                hinge += ((1 - (variance + EPSILON).sqrt()).relu_().sum(1) * weights[part]).sum()
                energy += (off_diagonal * weights[part]).sum()
        return hinge / rows.shape[2], energy / rows.shape[2]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        rows, places, weights = ctx.saved_tensors
        gradient = rows.new_zeros(rows.shape)
        scale = weights[:, None] / (rows.shape[2] * (len(rows) - 1))  # (M, 1)
        for_hinge, for_energy = gradients[0] * scale, gradients[1] * 4 * scale
        with torch.autocast(rows.device.type, enabled=False):
            for part in _chunks(rows, places):
                x, variance = _centred(rows, places[part])
                std = (variance + EPSILON).sqrt()
                # d hinge / dX = -X / ((N - 1) s) where s < 1; d energy / dX = 4 (XC - X diag v) / (N - 1)
                factor = -for_energy[part] * variance - for_hinge[part] * (std < 1) / std  # (M, D)
                product = _product(x).mul_(for_energy[part, None] / (len(rows) - 1))
                _give(gradient, places[part], _times(product, x).addcmul_(x, factor[:, None]))
        return gradient, None, None


def _centred(rows: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """The chosen rows less their mean over images (M, N, D), and their unbiased variance (M, D)."""
    x = _take(rows, places)
    x -= x.mean(1, keepdim=True)
    return x, x.square().sum(1) / (len(rows) - 1)


def _product(x: Tensor) -> Tensor:
    """(M, N, D) to XX' (M, N, N) or X'X (M, D, D), whichever is smaller."""
    return x @ x.mT if x.shape[1] < x.shape[2] else x.mT @ x


def _times(product: Tensor, x: Tensor) -> Tensor:
    """XX'X of every slot, (M, N, D), from what `_product` gave."""
    return product @ x if x.shape[1] < x.shape[2] else x @ product


def _places(rows: Tensor, slots: Tensor | None) -> Tensor:
    """Row numbers (M, N) in the (N P, D) matrix of all rows, of the slots (N, M) or of all P."""
    images, patches, _ = rows.shape
    if slots is None:
        slots = torch.arange(patches, device=rows.device).expand(images, -1)
    first = torch.arange(0, images * patches, patches, device=rows.device)  # (N,)
    return (slots + first[:, None]).T.contiguous()


def _equal_if_none(rows: Tensor, places: Tensor, weights: Tensor | None) -> Tensor:
    return rows.new_full((len(places),), 1 / len(places)) if weights is None else weights.to(rows.dtype)


def _take(rows: Tensor, places: Tensor) -> Tensor:
    return rows.flatten(0, 1).index_select(0, places.flatten()).view(*places.shape, -1)  # (M, N, D)


def _give(gradient: Tensor, places: Tensor, given: Tensor) -> None:
    gradient.view(-1, gradient.shape[2]).index_add_(0, places.flatten(), given.flatten(0, 1))


def _chunks(rows: Tensor, places: Tensor) -> Iterator[slice]:
    """Ranges of slots few enough that their rows and products stay within the device's number of elements."""
    images, _, dim = rows.shape
    elements = CHUNK.get(rows.device.type, CHUNK_ELSEWHERE)
    step = max(1, elements // (images * dim + min(images, dim) ** 2))
    for start in range(0, len(places), step):
        yield slice(start, start + step)
