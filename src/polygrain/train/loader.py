"""Batches for this rank, from the step where a run starts, by worker processes that may fail but not in silence."""

import math
import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from polygrain.data.batch import Batch
from polygrain.data.images import Images
from polygrain.data.loading import ViewBatches
from polygrain.train.order import Key, Order
from polygrain.train.signals import leave_signals_to_the_trainer
from polygrain.train.stops import Lost, Unusable

LOOK_EVERY_BATCHES = 20  # for how many images are broken
PREFETCH = 4  # batches ready for each worker
SHARED_MEMORY = Path("/dev/shm")
WORKER_FAILED = re.compile(
    r"DataLoader (worker|timed out)|unexpectedly|received 0 items of ancdata|Too many open files"
)


class Keys(Sampler[list[Key]]):
    """An order as the batch sampler of a loader."""

    def __init__(self, order: Order, start_step: int, stop_step: int) -> None:
        self._order, self._start, self._stop = order, start_step, stop_step

    def __iter__(self) -> Iterator[list[Key]]:
        return self._order.batches(self._start, self._stop)

    def __len__(self) -> int:
        return (self._stop - self._start) * self._order.accumulate


class Watched(Dataset[Batch]):
    """Batches of views; where each worker is, is in shared memory, for the message when it dies."""

    def __init__(self, batches: ViewBatches, workers: int) -> None:
        self._batches = batches
        self.at = torch.full((max(1, workers),), -1)  # (workers,) first image of the batch in hand
        self.at.share_memory_()  # type: ignore[no-untyped-call] # torch gives it no types

    def __len__(self) -> int:
        return len(self._batches)

    def __getitems__(self, keys: list[Key]) -> Batch:
        worker = get_worker_info()
        place = 0 if worker is None else worker.id
        self.at[place] = keys[0][1]
        batch = self._batches.__getitems__(keys)
        self.at[place] = -1
        return batch

    def in_hand(self) -> str:
        """The batches that workers were making, by their first images."""
        names = [self._batches.images.name(i) for i in self.at.tolist() if i >= 0]
        return ", ".join(map(repr, names)) or "none"


def load(
    views: ViewBatches,
    order: Order,
    *,
    start_step: int,
    stop_step: int,
    workers: int,
    timeout: float,
    max_bad_fraction: float,
    cuda: bool,
) -> Iterator[Batch]:
    """Batches in the order of the steps.

    Args:
        max_bad_fraction: of all images; when more turn out to be undecodable, the run ends.
        timeout: seconds after which a worker that delivers nothing counts as hung.

    Raises:
        ValueError: at once, when shared memory is too small for what the workers would put there.
    """
    if workers:
        check_shared_memory(views, order.batch_size // order.ranks // order.accumulate, workers)
    watched = Watched(views, workers)
    loader: DataLoader[Batch] = DataLoader(
        watched,
        batch_sampler=Keys(order, start_step, stop_step),
        num_workers=workers,
        collate_fn=_same,
        pin_memory=cuda,
        prefetch_factor=PREFETCH if workers else None,
        multiprocessing_context="forkserver" if workers and cuda else None,
        timeout=timeout if workers else 0,
        worker_init_fn=_start_worker,
    )
    return _enough_good(_told(iter(loader), watched, workers, timeout), views.images, max_bad_fraction)


def _enough_good(batches: Iterator[Batch], images: Images, most: float) -> Iterator[Batch]:
    """The same batches, while not too many images are replaced by others."""
    for i, batch in enumerate(batches):
        if i % LOOK_EVERY_BATCHES == 0 and len(images.broken) > most * len(images):
            counts = ", ".join(f"{count:,} {trouble}" for trouble, count in images.troubles().items())
            raise Unusable(
                f"{len(images.broken):,} of {len(images):,} images cannot be decoded so far ({counts}), more than "
                f"--max-bad-fraction {most:g}; see `polygrain inspect`, or raise it and --resume"
            )
        yield batch


def _told(batches: Iterator[Batch], watched: Watched, workers: int, timeout: float) -> Iterator[Batch]:
    """The same batches; what goes wrong in a worker is told with its cause and the mend."""
    try:
        yield from batches
    except (RuntimeError, EOFError, ConnectionError, OSError) as error:
        told = str(error)
        processes = getattr(batches, "_workers", [])  # torch tells their ids, but not how they ended
        codes = [process.exitcode for process in processes if process.exitcode is not None]
        if not (WORKER_FAILED.search(told) or (workers and isinstance(error, EOFError | ConnectionError))):
            raise
        if "timed out" in told:
            what = f"no worker delivered a batch for {timeout:.0f} s"
            mend = "look at the disk or network that holds the images, or raise --worker-timeout-seconds"
        elif "Bus error" in told or "shared memory" in told or -signal.SIGBUS in codes:
            what, mend = "a worker ran out of shared memory", "lower --workers, or give a container more (--shm-size)"
        elif "Killed" in told or -signal.SIGKILL in codes:
            what, mend = "a worker was killed", "was it short of memory? Lower --workers or --batch-size"
        elif "Too many open files" in told or "ancdata" in told:
            what, mend = "too many open files", "raise the limit (ulimit -n 65536) or lower --workers"
        else:
            what, mend = (
                f"a worker ended with exit code {', '.join(map(str, codes))}",
                "run with --workers 0 to see why",
            )
        reason = told.splitlines()[0] if told else type(error).__name__
        raise Lost(
            f"{what} ({reason}). Batches in hand began with: {watched.in_hand()}. {mend}; "
            "--resume continues from the last checkpoint"
        ) from error


def _start_worker(worker: int) -> None:
    leave_signals_to_the_trainer()
    torch.set_num_threads(1)


def _same(batch: Any) -> Any:
    return batch


def check_shared_memory(views: ViewBatches, batch: int, workers: int, folder: Path = SHARED_MEMORY) -> None:
    """Raises ValueError when the batches that workers hold ready do not fit into shared memory."""
    if not folder.is_dir():
        return
    pixels = sum(crops.count * crops.size**2 for crops in views.crops)
    needed = workers * PREFETCH * batch * pixels * 3 * np.dtype(np.float32).itemsize
    free = shutil.disk_usage(folder).free
    if needed > free:
        fit = math.floor(free / (needed / workers))
        raise ValueError(
            f"{workers} workers keep up to {needed / 2**20:,.0f} MiB of views in {folder}, which has "
            f"{free / 2**20:,.0f} MiB free; take --workers {fit}, or give a container more (docker: --shm-size)"
        )


def usable_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
