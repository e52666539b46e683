"""Runs a function in several gloo processes and returns what each rank returned."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def _run(rank: int, function: Callable[..., Any], world: int, folder: str, arguments: tuple[Any, ...]) -> None:
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    try:
        torch.save(function(*arguments), Path(folder) / f"{rank}.pt")
    finally:
        dist.destroy_process_group()


def run_ranks(function: Callable[..., Any], *arguments: Any, world: int = 2) -> list[Any]:
    """`function` must be importable (module level); it runs once per rank with the process group up."""
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_run, args=(function, world, folder, arguments), nprocs=world)
        return [torch.load(Path(folder) / f"{rank}.pt", weights_only=False) for rank in range(world)]
