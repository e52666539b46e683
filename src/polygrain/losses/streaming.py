"""Sums over many rows, taken chunk by chunk, so that no matrix of (queries, rows) is ever held."""

from typing import Any

import torch
from torch import Tensor

CHUNK = 4096  # rows at a time: their products with the queries of a step stay in cache


class LogSumExp:
    """log sum_j exp(query . row_j) for R queries, while chunks of rows come by, as FlashAttention does it.

    Holds the running maximum and sum, and the softmax-weighted mean of the rows, which is the gradient of the
    result by the query (arXiv:2205.14135, alg. 1).
    """

    def __init__(self, queries: Tensor) -> None:
        self.queries = queries  # (R, D)
        self.highest = queries.new_full((queries.shape[0], 1), -torch.inf)
        self.total = torch.zeros_like(self.highest)  # sum_j exp(x_j - highest)
        self.weighted = torch.zeros_like(queries)  # sum_j exp(x_j - highest) row_j

    def add(self, rows: Tensor) -> None:
        products = self.queries @ rows.T  # (R, chunk)
        highest = torch.maximum(self.highest, products.amax(1, keepdim=True))
        shrink = (self.highest - highest).exp_()
        products.sub_(highest).exp_()
        self.total.mul_(shrink).add_(products.sum(1, keepdim=True))
        self.weighted.mul_(shrink).addmm_(products, rows)
        self.highest = highest

    def value(self) -> Tensor:
        """(R,)"""
        return (self.total.log() + self.highest).squeeze(1)

    def mean(self) -> Tensor:
        """(R, D) softmax-weighted mean of the rows."""
        return self.weighted / self.total


class _LogSumExpOfProducts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, queries: Tensor, rows: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        running = LogSumExp(queries * scale)
        for start in range(0, len(rows), CHUNK):
            running.add(rows[start : start + CHUNK])
        highest = running.highest.squeeze(1)
        ctx.save_for_backward(running.mean().mul_(scale))
        ctx.mark_non_differentiable(highest)
        return running.value(), highest

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (slope,) = ctx.saved_tensors
        return slope * gradients[0][:, None], None, None


def logsumexp_of_products(queries: Tensor, rows: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """For each query log sum_j exp(scale query . row_j), and the highest scale query . row_j, which has no gradient.

    Equal to `torch.logsumexp(scale * queries @ rows.T, 1)`, but with (R, D) in memory instead of several (R, K), and
    no gradient for the rows.

    Args:
        queries: (R, D) float32.
        rows: (K, D) float32.

    Returns:
        (R,) and (R,).
    """
    lse, highest = _LogSumExpOfProducts.apply(queries, rows.detach(), scale)
    return lse, highest
