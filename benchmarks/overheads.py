"""What watching and saving cost, as shares of the same run.

    python -m benchmarks.overheads [--encoder vit_small_64] [--batch-size 16] [--steps 30]

Times the gauges with the alarm, and the writing of checkpoints, within a run of Mugs at the official sizes of heads and
queues. Checkpoints are counted at the default interval: the time of one over 15 minutes.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from polygrain.data.scenes import Scenes
from polygrain.train import pretrain as loop
from polygrain.train.keeping import Keeper
from polygrain.train.settings import PretrainSettings
from polygrain.train.setup import pretrain


def timed(function: Callable[..., Any], seconds: list[float]) -> Callable[..., Any]:
    def call(*arguments: Any, **options: Any) -> Any:
        began = time.perf_counter()
        try:
            return function(*arguments, **options)
        finally:
            seconds.append(time.perf_counter() - began)

    return call


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="vit_small_64")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=30)
    given = parser.parse_args()
    watching: list[float] = []
    saving: list[float] = []
    loop.measure = timed(loop.measure, watching)
    Keeper._write = timed(Keeper._write, saving)  # type: ignore[method-assign]
    folder = Path(tempfile.mkdtemp(prefix="overheads-"))
    settings = PretrainSettings(
        data="",
        out=str(folder / "run"),
        encoder=given.encoder,
        epochs=1,
        batch_size=given.batch_size,
        probe_every_epochs=0,
        scale="paper",
        stop_after_steps=given.steps,
    )
    began = time.perf_counter()
    pretrain(settings, {"large_size": 64, "small_size": 32}, None, Scenes(given.batch_size * 1000, size=64))
    whole = time.perf_counter() - began - sum(saving)
    size = sum(path.stat().st_size for path in (folder / "run").rglob("*.pt")) / 2
    every = settings.checkpoint_every_minutes * 60
    print(f"{given.encoder}, batch {given.batch_size}, {torch.get_num_threads()} threads, {given.steps} steps")
    print(f"gauges and alarm: {sum(watching):.3f} s of {whole:.1f} s, {sum(watching) / whole:.2%}")
    print(f"a checkpoint: {max(saving):.2f} s for {size / 2**20:,.0f} MiB, {max(saving) / every:.2%} at its interval")


if __name__ == "__main__":
    main()
