"""Many kills and many signals, over three methods; what CI runs is a short version.

    python -m benchmarks.kills --kills 60 --signals 20

Prints two JSON objects: kills by the phase they hit and the runs that differ from an undisturbed one, then signals with
the slowest ending and those that went wrong.
"""

import argparse
import subprocess
import sys


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--signals", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    commands = (
        ["tests.faults.kills", "--kills", str(given.kills), "--seed", str(given.seed)],
        ["tests.faults.signals", "--times", str(given.signals), "--seed", str(given.seed)],
    )
    sys.exit(max(subprocess.run([sys.executable, "-m", *command], check=False).returncode for command in commands))


if __name__ == "__main__":
    main()
