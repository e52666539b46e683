"""The processes of a run: how many, on what, and who speaks for them."""

import os
import sys
from datetime import timedelta
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy

from polygrain.train.loader import usable_cores
from polygrain.train.settings import PretrainSettings


def first_process() -> bool:
    """Whether this is rank 0, as far as the environment tells before the processes meet."""
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"))


def launch(settings: PretrainSettings) -> Fabric:
    """Starts the processes of the run; gradients are averaged over ranks, buffers are kept equal by design."""
    cuda = settings.accelerator in ("auto", "cuda") and torch.cuda.is_available()
    bf16 = settings.precision == "bf16" or (settings.precision == "auto" and cuda and torch.cuda.is_bf16_supported())
    many = settings.devices * settings.nodes > 1
    strategy: Any = settings.strategy
    if strategy == "auto" and (many or int(os.environ.get("WORLD_SIZE", "1")) > 1):
        strategy = DDPStrategy(
            broadcast_buffers=False,
            gradient_as_bucket_view=True,
            timeout=timedelta(seconds=settings.timeout_seconds),
        )
    usable = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not usable.get(settings.accelerator, True):
        raise ValueError(
            f"there is no {settings.accelerator} device here that PyTorch can use; leave --accelerator out"
        )
    fabric = Fabric(
        accelerator="cpu" if settings.accelerator == "auto" and not cuda else settings.accelerator,
        devices=settings.devices,
        num_nodes=settings.nodes,
        strategy=strategy,
        precision="bf16-mixed" if bf16 else "32-true",
    )
    fabric.launch()
    return fabric


def set_threads(settings: PretrainSettings, fabric: Fabric) -> int:
    """Shares the cores between the training process and its workers; returns the number of workers.

    Threads that wait for a core which a worker holds cost far more than they bring.
    """
    cores = max(1, usable_cores() // max(1, fabric.world_size // settings.nodes))
    workers = max(0, min(8, cores // 2)) if settings.workers is None else settings.workers
    threads = settings.threads
    if threads is None and fabric.device.type == "cpu":
        threads = max(1, cores - workers)
    if threads is not None:
        torch.set_num_threads(threads)
    return workers


def say(fabric: Fabric, line: str) -> None:
    if fabric.global_rank == 0:
        print(line, file=sys.stderr, flush=True)
