"""Vectors of all images of the data set: what objectives that cluster it look at before an epoch."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from polygrain import distributed
from polygrain.data.centred import centred
from polygrain.data.loading import ViewBatches
from polygrain.methods.base import Method
from polygrain.parts.encoder import Encoder
from polygrain.parts.teacher import StudentTeacher
from polygrain.train.order import Key
from polygrain.train.signals import leave_signals_to_the_trainer


@dataclass(frozen=True, kw_only=True)
class Embedder:
    """Embeds every image in batches shared among the ranks, as in training, by keyed crops.

    Args:
        batch_size: images over all ranks in a batch; a multiple of their number.
        workers: processes that decode images.
        timeout: seconds after which a worker that delivers nothing counts as hung.
    """

    method: Method
    views: ViewBatches
    fabric: Fabric
    batch_size: int
    workers: int
    timeout: float

    @torch.no_grad()
    def __call__(
        self, project: Callable[[Tensor], Tensor], *, epoch: int, crops: str | None = None, teacher: bool = False
    ) -> Tensor:
        """See `objectives.base.Embed`; `epoch` is the one whose random crops are taken."""
        pair = self.method.encoder
        encoder = pair.teacher if teacher and isinstance(pair, StudentTeacher) else self.method.student
        modes = [(part, part.training) for part in encoder.modules()]
        encoder.train(crops is not None)
        starts = self._starts()
        vectors: list[Tensor] = []  # V of (images, out)
        for start, batch in zip(starts, self._batches(starts, epoch, crops), strict=True):
            for view, pixels in enumerate(batch):
                with self.fabric.autocast():
                    out = project(_pooled(encoder, pixels.to(self.fabric.device)))
                rows = distributed.gather(out.float())
                if view == len(vectors):
                    vectors.append(rows.new_empty(len(self.views), rows.shape[1]))
                vectors[view][start : start + len(rows)] = rows
        for part, training in modes:
            part.training = training
        return torch.stack(vectors)

    def _starts(self) -> list[int]:
        """Of batches that are all full, so that batch norm and ranks see equally many; the last may overlap."""
        last = len(self.views) - self.batch_size
        return [*range(0, last, self.batch_size), last]

    def _batches(self, starts: Sequence[int], epoch: int, crops: str | None) -> Iterator[list[Tensor]]:
        share = self.batch_size // self.fabric.world_size
        first = self.fabric.global_rank * share
        keys = [[(epoch, i) for i in range(start + first, start + first + share)] for start in starts]
        size = max(request.size for request in self.views.crops)
        requests = [request for request in self.views.crops if request.name == crops]
        data = self.views
        source: Dataset[list[Tensor]] = (
            _Centred(data, size)
            if crops is None
            else _Cropped(ViewBatches(data.images, requests, seed=data.seed, normalisation=data.normalisation))
        )
        cuda = self.fabric.device.type == "cuda"
        return iter(
            DataLoader(
                source,
                batch_sampler=keys,
                num_workers=self.workers,
                collate_fn=_same,
                multiprocessing_context="forkserver" if self.workers and cuda else None,
                timeout=self.timeout if self.workers else 0,
                worker_init_fn=_start_worker,
            )
        )


def _pooled(encoder: Encoder, pixels: Tensor) -> Tensor:
    return encoder.features(pixels).pooled


class _Cropped(Dataset[list[Tensor]]):
    """Pixels (B, C, H, W) of the crops of one request, view by view."""

    def __init__(self, views: ViewBatches) -> None:
        self._views = views

    def __getitems__(self, keys: Sequence[Key]) -> list[Tensor]:
        (views,) = self._views.__getitems__(keys).views.values()
        return [view.pixels for view in views]


class _Centred(Dataset[list[Tensor]]):
    """Pixels (B, C, size, size) of the centred crop, as the only view."""

    def __init__(self, views: ViewBatches, size: int) -> None:
        self._images, self._normalisation, self._size = views.images, views.normalisation, size

    def __getitems__(self, keys: Sequence[Key]) -> list[Tensor]:
        crops = [centred(self._images.decode(i), self._size, self._normalisation) for _, i in keys]
        return [torch.stack(crops)]


def _same(batch: list[Tensor]) -> list[Tensor]:
    return batch


def _start_worker(worker: int) -> None:
    leave_signals_to_the_trainer()
    torch.set_num_threads(1)
