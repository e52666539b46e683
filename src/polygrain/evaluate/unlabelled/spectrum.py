"""How many directions a cloud of vectors fills: its singular values (N, D rows), in float64 on the CPU."""

from typing import NamedTuple

import torch
from torch import Tensor

FIRST_RANK, LAST_RANK = 11, 100  # that the power law is fitted to
EPSILON = 1e-7  # of RankMe and LiDAR


def singular_values(vectors: Tensor, *, centred: bool) -> Tensor:
    """Of (N, D), largest first; what rounding alone could leave counts as 0."""
    rows = vectors.detach().to("cpu", torch.float64)
    if centred:
        rows = rows - rows.mean(0)
    if len(rows) > rows.shape[1]:
        rows = torch.linalg.qr(rows, mode="r").R  # the same singular values, in (D, D)
    sigma = torch.linalg.svdvals(rows)
    size = torch.linalg.vector_norm(vectors.double())
    noise = max(vectors.shape) * torch.finfo(torch.float64).eps * size
    return torch.where(sigma > noise, sigma, 0.0)


def effective_rank(vectors: Tensor, *, centred: bool = False) -> float:
    """exp H(p), p = sigma / ||sigma||_1 (Roy & Vetterli, EUSIPCO 2007); 1 to min(N, D), 0 where all is 0."""
    sigma = singular_values(vectors, centred=centred)
    return exponential_of_entropy(sigma)


def stable_rank(vectors: Tensor, *, centred: bool = False) -> float:
    """||Z||_F^2 / ||Z||_2^2 (Tsitsulin et al., arXiv:2305.16562); 1 to min(N, D), 0 where all is 0."""
    squares = singular_values(vectors, centred=centred).square()
    return float(squares.sum() / squares[0]) if squares[0] > 0 else 0.0


def nesum(vectors: Tensor) -> float:
    """Sum of the eigenvalues of the covariance over the largest (He & Ozay, ICML 2022): the centred stable rank."""
    return stable_rank(vectors, centred=True)


class PowerLaw(NamedTuple):
    """lambda_j ~ j^-alpha."""

    alpha: float
    r2: float  # of log lambda, over the ranks it was fitted to


def alpha_req(vectors: Tensor) -> PowerLaw | None:
    """Decay of the eigenvalues of the covariance (Agrawal et al., NeurIPS 2022): best near 1.

    Least squares of log lambda_j on log j with weights 1 / j over the ranks 11 to 100, as the authors' package reptrix
    does; None where there are fewer than 20 such eigenvalues above 0.
    """
    eigenvalues = singular_values(vectors, centred=True).square()
    eigenvalues = eigenvalues[eigenvalues > 0][:LAST_RANK]
    ranks = torch.arange(1, len(eigenvalues) + 1, dtype=torch.float64)[FIRST_RANK - 1 :]
    if len(ranks) < 20:
        return None
    x, y, weights = ranks.log(), eigenvalues[FIRST_RANK - 1 :].log(), 1 / ranks
    weights = weights / weights.sum()
    x_mean, y_mean = (weights * x).sum(), (weights * y).sum()
    slope = (weights * (x - x_mean) * (y - y_mean)).sum() / (weights * (x - x_mean).square()).sum()
    left = (y - y_mean - slope * (x - x_mean)).square().sum()
    total = (y - y.mean()).square().sum()
    return PowerLaw(-float(slope), float(1 - left / total) if total > 0 else 1.0)


def lidar(views: Tensor, delta: float = 1e-4) -> float:
    """exp H of the eigenvalues of Sw^-1/2 Sb Sw^-1/2, with p = lambda / sum lambda + 1e-7 (LiDAR, arXiv:2312.04000).

    Sb is the covariance of the images' means, Sw the mean covariance of the views of an image plus delta I. At most
    min(D, n - 1); 1 where the means of all images are the same.

    Args:
        views: (n, V, D), V views of each image; the paper takes n = 1,000 and V = 50.
    """
    rows = views.detach().to("cpu", torch.float64)
    means = rows.mean(1)  # (n, D)
    away = (rows - means[:, None]).flatten(0, 1)  # (n V, D)
    around = means - means.mean(0)
    between, within = around.T @ around / len(around), away.T @ away / len(away)
    values, basis = torch.linalg.eigh(within + delta * torch.eye(len(within), dtype=within.dtype))
    whiten = basis * values.clamp_min(delta).rsqrt()  # Sw^-1/2 but for a rotation, which changes no eigenvalue
    eigenvalues = torch.linalg.eigvalsh(whiten.T @ between @ whiten).clamp_min(0)
    total = eigenvalues.sum()
    return exponential_of_entropy(eigenvalues, EPSILON) if total > 0 else 1.0


def exponential_of_entropy(values: Tensor, epsilon: float = 0.0) -> float:
    """exp(-sum p log p) with p = values / their sum + epsilon; 0 where all values are 0."""
    total = values.sum()
    if total <= 0:
        return 0.0
    return float(torch.special.entr(values / total + epsilon).sum().exp())
