"""Reads damaged images and shards for a while, and counts what became of them.

    nice python -m benchmarks.fuzz --minutes 5 --data ../shared/data

The rules are those of tests/data/fuzzing.py. A case that breaks one is written to --keep, with its seed format, damage
and what happened; a crash of the process leaves the case at hand in "last".
"""

import argparse
import resource
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from tests.data import fuzzing

from polygrain.data.decoding import decode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--keep", type=Path, help="folder for the cases that broke a rule")
    arguments = parser.parse_args()
    keep = arguments.keep or Path(tempfile.mkdtemp(prefix="polygrain-fuzz-"))
    keep.mkdir(exist_ok=True)
    end = time.monotonic() + 60 * arguments.minutes

    files, tars = fuzzing.seeds(arguments.data), fuzzing.archives(arguments.data)
    whole = {name: decode(data) for name, data in files.items()}
    images, shards = fuzzing.cases(files, arguments.seed), fuzzing.cases(tars, arguments.seed)
    random = np.random.default_rng(arguments.seed)
    outcomes: Counter[str] = Counter()
    broken: Counter[str] = Counter()
    slowest = 0.0
    early_peak = 0
    count = 0
    while time.monotonic() < end:
        count += 1
        shard = count % 8 == 0
        case = next(shards if shard else images)
        if shard and random.random() < 0.5:
            case = case._replace(data=fuzzing.mended(case.data))
        (keep / "last").write_bytes(case.data)
        start = time.perf_counter()
        try:
            if shard:
                outcome = "shard " + fuzzing.check_shard(case.data, keep / "shard.tar")
            else:
                outcome = "image " + fuzzing.check_decode(case, whole[case.of])
        except fuzzing.Broken as error:
            outcome = "BROKEN"
            broken[f"{case.of}, {case.how}: {str(error)[:100]}"] += 1
            (keep / f"{count}-{case.of}-{case.how}".replace(" ", "-")).write_bytes(case.data)
        outcomes[outcome] += 1
        slowest = max(slowest, time.perf_counter() - start)
        if count == 5000:
            early_peak = peak()
    print(f"{count:,} cases in {arguments.minutes:g} minutes, seed {arguments.seed}")
    for outcome, number in outcomes.most_common():
        print(f"  {outcome:<24} {number:>9,}")
    print(f"slowest case {slowest:.2f} s; peak memory {peak()} MiB, {early_peak} MiB after 5,000 cases")
    for what, number in broken.most_common(40):
        print(f"  {number:>6,} x {what}")
    print(f"cases kept in {keep}" if broken else "no rule was broken")
    return 1 if broken else 0


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    sys.exit(main())
