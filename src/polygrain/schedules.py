"""Schedules: pure functions of Time, so there is nothing to checkpoint and nothing to drift."""

import math
from collections.abc import Callable
from typing import NamedTuple


class Time(NamedTuple):
    """Where a run stands: `step` optimizer steps are done."""

    step: int
    steps_per_epoch: int
    epochs: int

    @property
    def epoch(self) -> int:
        return self.step // self.steps_per_epoch

    @property
    def steps(self) -> int:
        return self.steps_per_epoch * self.epochs


class RunLength(NamedTuple):
    """How long a run is; what schedules that count in images need to know."""

    images: int
    batch_size: int  # images per optimizer step over all ranks
    epochs: int
    steps_per_epoch: int


Schedule = Callable[[Time], float]


def constant(value: float) -> Schedule:
    return lambda time: value


def cosine(start: float, end: float) -> Schedule:
    """Half a cosine from `start` to `end` over the whole run: end + (start - end)(1 + cos(pi i/N))/2, i < N steps.

    With start = m0 and end = 1 this is the teacher momentum of BYOL, DINO and Mugs.
    """

    def at(time: Time) -> float:
        return end + 0.5 * (start - end) * (1 + math.cos(math.pi * time.step / time.steps))

    return at


def cosine_by_epoch(start: float) -> Schedule:
    """Half a cosine from `start` to 0 that stays the same within each epoch (MoCo v2, SimSiam, PCL)."""
    return lambda time: 0.5 * start * (1 + math.cos(math.pi * time.epoch / time.epochs))


def warmup_cosine(peak: float, end: float, warmup_epochs: float, start: float = 0.0) -> Schedule:
    """Learning rate of DINO and Mugs: a warm-up from 0 that reaches the peak, then a cosine that starts at the peak.

    The last warm-up step and the first cosine step both have the peak value, and the last step lies slightly
    above `end` (`linspace` with both ends included, then i = 0 .. M-1 of M).

    Args:
        start: value of the first warm-up step (SwAV: 0.3).
    """

    def at(time: Time) -> float:
        warmup = int(warmup_epochs * time.steps_per_epoch)
        if time.step < warmup:
            return start + (peak - start) * time.step / (warmup - 1) if warmup > 1 else start
        done = (time.step - warmup) / max(1, time.steps - warmup)
        return end + 0.5 * (peak - end) * (1 + math.cos(math.pi * min(1.0, done)))

    return at


def warmup_cosine_by_images(peak: float, end: float, warmup_epochs: float, length: RunLength) -> Schedule:
    """Learning rate of VICReg and VICRegL: linear from 0, then cosine; both counted in images seen.

    Warm-up takes floor(warmup_epochs n / batch) steps and the cosine ends at floor(epochs n / batch) steps,
    whatever number of steps an epoch really has; past that end the value stays at `end`.
    """
    warmup = int(warmup_epochs * length.images / length.batch_size)
    total = int(length.epochs * length.images / length.batch_size)

    def at(time: Time) -> float:
        if time.step < warmup:
            return peak * time.step / warmup
        done = min(1.0, (time.step - warmup) / max(1, total - warmup))
        share = 0.5 * (1 + math.cos(math.pi * done))
        return peak * share + end * (1 - share)

    return at


def ramp_by_epoch(start: float, end: float, epochs: int) -> Schedule:
    """Teacher temperature of DINO and Mugs: linear over the first `epochs` epochs, both ends included, then `end`."""

    def at(time: Time) -> float:
        if time.epoch >= epochs:
            return end
        return start + (end - start) * time.epoch / (epochs - 1) if epochs > 1 else start

    return at
