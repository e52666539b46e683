"""Whitening of vectors, learnt on other images, as DINO's script for copy detection does it."""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

FLOOR = 1e-5  # of eigenvalues, as a share of the largest


class Whitening(NamedTuple):
    """An affine map of vectors."""

    mean: Tensor  # (D,)
    rotation: Tensor  # (D, D) eigenvectors in rows, each divided by the root of its eigenvalue

    def __call__(self, vectors: Tensor) -> Tensor:
        """(n, D) to (n, D) of unit length."""
        return F.normalize((vectors.double() - self.mean) @ self.rotation.T, dim=1).float()


def whitening(vectors: Tensor, covariance: Literal["uncentred", "centred"] = "uncentred") -> Whitening:
    """Learns it from vectors (n, D).

    DINO (arXiv:2104.14294, official `eval_copy_detection.py`) takes the mean off the images that are compared, but the
    second moments of vectors with their mean: "uncentred". "centred" is the covariance.
    """
    values = vectors.double()
    mean = values.mean(dim=0)
    if covariance == "centred":
        values = values - mean
    eigenvalues, eigenvectors = torch.linalg.eigh(values.T @ values / len(values))
    floored = eigenvalues.clamp(min=FLOOR * eigenvalues.max().item())
    return Whitening(mean, eigenvectors.T / floored.sqrt()[:, None])
