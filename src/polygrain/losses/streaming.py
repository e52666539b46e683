"""Log-sum-exp of the products of many vectors, without ever holding the matrix of products."""

from typing import Any

import torch
from torch import Tensor

CHUNK = 4096  # rows taken at a time: their products with the queries of a step stay in cache


class _LogSumExpOfProducts(torch.autograd.Function):
    """Running maximum, sum and weighted mean over chunks of rows, as in FlashAttention (arXiv:2205.14135, alg. 1).

    d lse / d query = scale * sum_j softmax_j row_j, which is what attention over the rows would return, is
    accumulated along the way and needs (R, D). d lse / d row needs the softmax again, so backward recomputes it.
    """

    @staticmethod
    def forward(ctx: Any, queries: Tensor, rows: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        wants_queries, wants_rows = ctx.needs_input_grad[:2]
        highest = queries.new_full((queries.shape[0], 1), -torch.inf)
        total = torch.zeros_like(highest)
        mean = torch.zeros_like(queries) if wants_queries else None  # sum_j exp(x_j - highest) row_j
        scaled = queries * scale
        for start in range(0, len(rows), CHUNK):
            chunk = rows[start : start + CHUNK]
            products = scaled @ chunk.T  # (R, chunk)
            raised = torch.maximum(highest, products.amax(1, keepdim=True))
            shrink = (highest - raised).exp_()
            products.sub_(raised).exp_()
            total.mul_(shrink).add_(products.sum(1, keepdim=True))
            if mean is not None:
                mean.mul_(shrink).addmm_(products, chunk)
            highest = raised
        lse = total.log().add_(highest)
        if mean is not None:
            mean.mul_(scale / total)
        ctx.scale = scale
        ctx.save_for_backward(mean, lse, *((queries, rows) if wants_rows else (None, None)))
        ctx.mark_non_differentiable(highest)
        return lse.squeeze(1), highest.squeeze(1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        gradient = gradients[0][:, None]  # (R, 1)
        mean, lse, queries, rows = ctx.saved_tensors
        to_rows = None
        if rows is not None:
            to_rows = torch.empty_like(rows)
            scaled, weighted = queries * ctx.scale, queries * (gradient * ctx.scale)
            for start in range(0, len(rows), CHUNK):
                chunk = rows[start : start + CHUNK]
                softmax = (scaled @ chunk.T).sub_(lse).exp_()  # (R, chunk)
                torch.mm(softmax.T, weighted, out=to_rows[start : start + CHUNK])
        return None if mean is None else mean * gradient, to_rows, None


def logsumexp_of_products(queries: Tensor, rows: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """For each query log sum_j exp(scale query . row_j), and the highest scale query . row_j.

    Equal to `torch.logsumexp(scale * queries @ rows.T, 1)`, but memory is (R, D) instead of several (R, K).
    Both inputs get gradients where they ask for them; the maximum has none. float32, autocast or not.

    Args:
        queries: (R, D).
        rows: (K, D).

    Returns:
        (R,) and (R,).
    """
    with torch.autocast(queries.device.type, enabled=False):
        lse, highest = _LogSumExpOfProducts.apply(queries.float(), rows.float(), scale)
    return lse, highest
