"""Images per second of `polygrain inspect`, beside those of decoding alone.

    python benchmarks/inspecting.py ../shared/data/imagenette/train.tar --workers 0 1 2

Each number of workers is run --repeats times, in turn; the fastest counts. Processes start within the time that is
measured, as they do in the command.
"""

import argparse
import time

import numpy as np
import torch

from polygrain.data.duplicates import first_near
from polygrain.data.inspection import inspect_images
from polygrain.data.sources import Images, open_images


def seconds_to_decode(images: Images) -> float:
    start = time.perf_counter()
    for i in range(len(images)):
        images.decode(i)
    return time.perf_counter() - start


def seconds_to_inspect(images: Images, workers: int) -> float:
    start = time.perf_counter()
    inspect_images(images, workers=workers)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--hashes", type=int, default=1_000_000, help="of a made-up set, to search for near duplicates")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.data:
        images = open_images(name)
        decoding: list[float] = []
        inspecting: dict[int, list[float]] = {workers: [] for workers in arguments.workers}
        for _ in range(arguments.repeats):
            decoding.append(seconds_to_decode(images))
            for workers in arguments.workers:
                inspecting[workers].append(seconds_to_inspect(images, workers))
        print(f"{name}: {len(images):,} images; decoding alone {len(images) / min(decoding):,.0f} images/s")
        for workers, seconds in inspecting.items():
            rate = len(images) / min(seconds)
            print(f"  inspect, workers {workers}: {rate:,.0f} images/s, {min(decoding) / min(seconds):.2f} of decoding")
    if arguments.hashes:
        hashes = np.random.default_rng(0).integers(0, 2**63, (2, arguments.hashes), dtype=np.uint64)
        start = time.perf_counter()
        first_near(*hashes)
        print(f"near duplicates among {arguments.hashes:,} hashes: {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
