"""Shuffled batch norm: on every device the teacher's statistics are those of a random share of all images."""

import warnings
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from polygrain.distributed import gather, rank, world_size
from polygrain.parts.encoder import Encoder
from polygrain.parts.teacher import StudentTeacher
from polygrain.views import Encoding, View

Fields = TypeVar("Fields", View, Encoding)


class Shuffle:
    """Sends every image to a random device before an encoder, and what became of it back afterwards.

    Query and key of an image are then normed with different images, so that their statistics do not tell which
    belong together (MoCo, arXiv:1911.05722, sec. 3.3). Without gradient, hence for teachers alone.
    """

    def __init__(self) -> None:
        self.order = torch.empty(0, dtype=torch.long)  # (N,) images of all ranks, as they are sent

    def before(self, encoder: nn.Module, inputs: tuple[View]) -> tuple[View] | None:
        if world_size() == 1:
            return None
        (view,) = inputs
        count = len(view.pixels) * world_size()
        self.order = torch.randperm(count, device=view.pixels.device)
        dist.broadcast(self.order, src=0)
        return (taken(view, self.order),)

    def after(self, encoder: nn.Module, inputs: Any, encoding: Encoding) -> Encoding | None:
        return None if world_size() == 1 else taken(encoding, self.order.argsort())


def taken(record: Fields, order: Tensor) -> Fields:
    """This rank's share of the rows of all ranks in another order; the view within an encoding likewise."""

    def mine(field: Any) -> Any:
        if isinstance(field, View):
            return taken(field, order)
        return None if field is None else gather(field)[order].chunk(world_size())[rank()]

    return type(record)(*(mine(field) for field in record))


def shuffle_between_ranks(pair: StudentTeacher[Encoder]) -> None:
    """Leaves batch norm of student and teacher to each rank, and shuffles what the teacher encodes.

    In one process there is nobody to shuffle with, which is said.
    """
    if world_size() == 1:
        warnings.warn(
            "shuffled batch norm does nothing on one device: query and key of an image share their batch's statistics",
            stacklevel=2,
        )
    shuffle = Shuffle()
    pair.statistics_by_rank = True  # type: ignore[assignment]  # `synchronise_batch_norm` leaves it alone
    pair.teacher.register_forward_pre_hook(shuffle.before)
    pair.teacher.register_forward_hook(shuffle.after)
