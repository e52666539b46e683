"""Whether memory grows over epochs: a million paths, two workers.

    python -m benchmarks.memory [--images 1000000] [--batches 200] [--epochs 5]

Makes that many links to a few rendered pictures, draws batches with two workers, and prints after
each epoch the memory of all processes together (PSS: shared pages count once).
"""

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from polygrain.data.folders import FolderImages
from polygrain.data.loading import ViewBatches
from polygrain.data.scenes import Scenes
from polygrain.train.loader import load
from polygrain.train.order import Order
from polygrain.views import Crops


def proportional_set_size(process: int) -> int:
    """KiB of a process and all below it."""
    total = 0
    for path in Path("/proc").iterdir():
        if not path.name.isdigit():
            continue
        try:
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            if process in (int(path.name), parent):
                rows = (path / "smaps_rollup").read_text().splitlines()
                total += next(int(row.split()[1]) for row in rows if row.startswith("Pss:"))
        except (OSError, StopIteration):
            continue
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--batches", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="memory-") as name:
        folder = Path(name)
        pictures = []
        for i in range(50):
            pictures.append(folder / f"{i}.jpg")
            Image.fromarray(Scenes(50, size=64).decode(i).permute(1, 2, 0).numpy().astype(np.uint8)).save(pictures[-1])
        for i in range(given.images):
            if i % 1000 == 0:
                (folder / f"{i // 1000:05}").mkdir()
            (folder / f"{i // 1000:05}" / f"{i:08}.jpg").symlink_to(pictures[i % 50])
        images = FolderImages(folder)
        crops = Crops(name="large", count=2, size=32, scale=(0.5, 1.0), recipes=("byol_a",))
        order = Order(images=len(images), batch_size=32, seed=0)
        batches = load(
            ViewBatches(images, [crops], seed=0), order, start_step=0, stop_step=given.batches * given.epochs,
            workers=2, timeout=300, max_bad_fraction=0.01, cuda=False,
        )  # fmt: skip
        for epoch in range(given.epochs):
            for _ in range(given.batches):
                next(batches)
            print(f"after {(epoch + 1) * given.batches} batches: {proportional_set_size(os.getpid()) / 1024:.1f} MiB")


if __name__ == "__main__":
    main()
