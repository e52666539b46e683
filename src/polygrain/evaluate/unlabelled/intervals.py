"""How sure a number is, given the sample it comes from."""

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


def over_images(values: Floats, of: Callable[[Floats], Floats] = first, *, seed: int = 0) -> Estimate:
    """A function of means over images, with the interval from 1,000 bootstrap resamples of the images.

    Args:
        values: (n, C) or (n,), what each image contributes.
        of: from means (..., C) to the number (...); the first mean by default.
    """
    rows = values[:, None] if values.ndim == 1 else values
    n = len(rows)
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), RESAMPLES)  # (R, n)
    low, high = np.percentile(of(counts @ rows / n), [2.5, 97.5])
    return Estimate(float(of(rows.mean(0))), float(low), float(high))


def over_runs(values: Floats, most: float = 1.0) -> Estimate:
    """Mean of a few runs (2 to 5) with Student's interval, cut at the largest value there can be."""
    mean = float(values.mean())
    half = T_95[len(values)] * float(values.std(ddof=1)) / len(values) ** 0.5
    return Estimate(mean, mean - half, min(most, mean + half))
