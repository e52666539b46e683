"""kNN of many queries against many keys in bounded memory: its time and its peak memory.

python -m benchmarks.knn [--queries 50000] [--keys 1000000] [--dim 192] [--k 20]

Nine minutes of one core as it stands; fewer queries are quicker, and need less memory for their votes and answers.
"""

import argparse
import resource
import time

import torch

from polygrain.losses.neighbours import knn_predict

CLASSES = 1000


def peak() -> float:
    """MiB, of the whole process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("queries", 50_000), ("keys", 1_000_000), ("dim", 192), ("k", 20)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    random = torch.Generator().manual_seed(0)
    bank = torch.randn(options.keys, options.dim, generator=random)
    labels = torch.randint(CLASSES, (options.keys,), generator=random)
    queries = torch.randn(options.queries, options.dim, generator=random)
    before, start, busy = peak(), time.perf_counter(), time.process_time()
    knn_predict(queries, bank, labels, classes=CLASSES, ks=(options.k,))
    wall, cpu = time.perf_counter() - start, time.process_time() - busy
    table = 4 * options.queries * options.keys / 2**20
    print(
        f"{options.queries} queries x {options.keys} keys x {options.dim}, k={options.k}, "
        f"{torch.get_num_threads()} thread(s): {cpu:.1f} s of CPU ({wall:.1f} s of wall), "
        f"{2e-9 * options.queries * options.keys * options.dim / cpu:.0f} GFLOP/s; "
        f"{peak() - before:.0f} MiB beyond the bank ({bank.numel() * 4 / 2**20:.0f} MiB), "
        f"where all similarities at once would take {table:,.0f} MiB"
    )


if __name__ == "__main__":
    main()
