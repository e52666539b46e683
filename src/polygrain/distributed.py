"""Collectives that are the identity in one process, so that nothing above needs to ask how many there are."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


@contextmanager
def joined() -> Iterator[None]:
    """Among the processes that `torchrun` started, all of them together; else nothing."""
    if world_size() > 1 or int(os.environ.get("WORLD_SIZE", "1")) == 1 or "MASTER_ADDR" not in os.environ:
        yield
        return
    dist.init_process_group("gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def barrier() -> None:
    """Waits for all ranks."""
    if world_size() > 1:
        dist.barrier()


def gather(rows: Tensor) -> Tensor:
    """Rows of all ranks in rank order, without gradient: (B, ...) -> (W B, ...). Every rank must hold equally many.

    Booleans travel as bytes, since not every backend can move them.
    """
    rows = rows.detach()
    if world_size() == 1:
        return rows
    sent = rows.to(torch.uint8) if rows.dtype == torch.bool else rows
    parts = [torch.empty_like(sent) for _ in range(world_size())]
    dist.all_gather(parts, sent.contiguous())
    return torch.cat(parts).to(rows.dtype)


class _GatherWithGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        return gather(rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        gradient = gradients[0].contiguous()
        dist.all_reduce(gradient)
        count = gradient.shape[0] // world_size()
        return gradient[rank() * count : (rank() + 1) * count]


def gather_with_gradient(rows: Tensor) -> Tensor:
    """Rows of all ranks; backward sums the gradients of all ranks and returns this rank's slice.

    Every rank then computes the same loss of the whole batch, and the average over ranks that data-parallel
    training takes of the gradients is exactly the single-process gradient (`VICReg`, arXiv:2105.04906, code).
    """
    if world_size() == 1:
        return rows
    gathered: Tensor = _GatherWithGradient.apply(rows)
    return gathered


class _SumWithGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        value = value.clone()
        dist.all_reduce(value)
        return value

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        gradient = gradients[0].clone()
        dist.all_reduce(gradient)
        return gradient


def sum_with_gradient(value: Tensor) -> Tensor:
    """Sum over ranks; backward sums the gradients of all ranks."""
    if world_size() == 1:
        return value
    total: Tensor = _SumWithGradient.apply(value)
    return total


def total(value: Tensor) -> Tensor:
    """Sum over ranks, without gradient."""
    value = value.detach()
    if world_size() == 1:
        return value
    value = value.clone()
    dist.all_reduce(value)
    return value


def mean(value: Tensor) -> Tensor:
    """Mean over ranks, without gradient."""
    return total(value) / world_size()


def anywhere(flags: Tensor) -> Tensor:
    """Which flags (N,), bool, are set on any rank: all ranks come to the same answer."""
    if world_size() == 1:
        return flags
    votes = flags.to(torch.int32)
    dist.all_reduce(votes, op=dist.ReduceOp.MAX)
    return votes.bool()
