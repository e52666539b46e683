"""How sure a number is, and the difference of two, given the sample they come from."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from polygrain.evaluate.metrics import RESAMPLES

Floats = NDArray[np.float64]
T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}  # of Student's distribution, by the number of runs


class Estimate(NamedTuple):
    """A number and its 95 % interval."""

    value: float
    low: float
    high: float

    def scores(self, name: str) -> dict[str, float]:
        """As a result keeps it."""
        return {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high}


def first(means: Floats) -> Floats:
    return means[..., 0]


class Sample(NamedTuple):
    """What each item of a test contributes to one number, in order."""

    values: Floats  # (n,) or (n, C)
    of: Callable[[Floats], Floats] = first  # from means over items (..., C) to the number (...)

    @property
    def rows(self) -> Floats:
        """(n, C)."""
        return self.values.reshape(len(self.values), -1)

    def estimate(self, *, seed: int = 0) -> Estimate:
        """The number, with the interval from 1,000 bootstrap resamples of the items."""
        return _estimate(self.rows, self.of, seed)

    def gain(self, before: "Sample", *, seed: int = 0) -> Estimate:
        """How much larger the number is than that of another model on the same items, with the interval from 1,000
        bootstrap resamples of the pairs."""
        columns = self.rows.shape[1]

        def of_both(means: Floats) -> Floats:
            return self.of(means[..., :columns]) - before.of(means[..., columns:])

        return _estimate(np.concatenate([self.rows, before.rows], axis=1), of_both, seed)


def _estimate(rows: Floats, of: Callable[[Floats], Floats], seed: int) -> Estimate:
    n, random = len(rows), np.random.default_rng(seed)
    sums = [np.bincount(random.integers(n, size=n), minlength=n) @ rows for _ in range(RESAMPLES)]
    low, high = np.percentile(of(np.stack(sums) / n), [2.5, 97.5])
    return Estimate(float(of(rows.mean(0))), float(low), float(high))


def over_runs(values: Floats, most: float = 1.0) -> Estimate:
    """Mean of a few runs (2 to 5) with Student's interval, cut at the largest value there can be."""
    mean = float(values.mean())
    half = T_95[len(values)] * float(values.std(ddof=1)) / len(values) ** 0.5
    return Estimate(mean, mean - half, min(most, mean + half))
