"""The alarm: readings that say that the features are dead, for how long, and what to tell the person."""

import math
from collections.abc import Mapping
from typing import NamedTuple

from polygrain.objectives.base import DeadValue
from polygrain.train.stops import Dead

PATIENCE_STEPS = 150  # of dead readings in a row before the run stops; a quarter of a run that is shorter than 600
LEAST_PATIENCE_STEPS = 20

FEATURES = {
    "features/pooled_spread": DeadValue(
        low=0.0,
        high=0.01,
        meaning="the backbone's vector is the same for all images",
        mend="look at the images (polygrain inspect), lower the learning rate or lengthen the warm-up",
    ),
    "features/pooled_effective_rank": DeadValue(
        low=0.0,
        high=1.01,
        meaning="the backbone's vectors all lie on one line",
        mend="look at the images (polygrain inspect), lower the learning rate or lengthen the warm-up",
    ),
    "features/patches_spread": DeadValue(
        low=0.0,
        high=0.01,
        meaning="the backbone's patch vectors are all the same",
        mend="look at the images (polygrain inspect), lower the learning rate or lengthen the warm-up",
    ),
}


class Sign(NamedTuple):
    """A reading that has been dead since a step."""

    reading: str
    value: float
    since: int
    dead: DeadValue

    def __str__(self) -> str:
        bounds = f"dead from {self.dead.low:.4g}" if math.isinf(self.dead.high) else f"dead up to {self.dead.high:.4g}"
        return f"{self.reading} is {self.value:.4g} ({bounds}) since step {self.since}: {self.dead.meaning}"


class Alarm:
    """Watches readings; stops a run whose features stay dead.

    Args:
        dead_values: by the names of terms, or of gauges.
        steps: of the whole run.
    """

    def __init__(self, dead_values: Mapping[str, DeadValue], steps: int) -> None:
        self.dead_values = dict(dead_values)
        self.patience = min(PATIENCE_STEPS, max(LEAST_PATIENCE_STEPS, steps // 4))
        self.least = min(self.patience, steps // 2)  # what counts as lasting at the end of a run
        self.signs: dict[str, Sign] = {}
        self._step = 0
        self._told: set[str] = set()

    def look(self, record: Mapping[str, float], step: int) -> list[Sign]:
        """Takes the readings of a step; returns the signs that have just lasted a third of the patience."""
        before, last, self._step = self.signs, self._step, step
        self.signs = {}
        for name, dead in self.dead_values.items():
            reading = name if name in record else f"gauges/{name}"  # a term of the loss, or a gauge
            if reading in record and dead.low <= record[reading] <= dead.high:
                since = before[reading].since if reading in before else step
                self.signs[reading] = Sign(reading, record[reading], since, dead)
        third = self.patience / 3
        return [sign for sign in self.signs.values() if step - sign.since >= third > last - sign.since]

    @property
    def healthy(self) -> bool:
        return not self.signs

    def verdict(self, *, last: bool) -> Dead | None:
        """What stops the run, if anything: a sign that has lasted, or one that stands at the end of a short run.

        For a run that goes on regardless, the same signs are no new verdict until the end.
        """
        enough = self.least if last else self.patience
        lasting = [sign for sign in self.signs.values() if self._step - sign.since >= enough]
        told, self._told = self._told, {sign.reading for sign in lasting}
        if not lasting or (self._told <= told and not last):
            return None
        mends = "; ".join(dict.fromkeys(sign.dead.mend for sign in lasting))
        evidence = ". ".join(map(str, lasting))
        return Dead(f"the features are dead at step {self._step}. {evidence}. What to change: {mends}.")


def not_finite(bad: list[str], step: int, record: Mapping[str, float]) -> Dead:
    """What stops a run whose loss or gradient is no number."""
    lr = f" The learning rate is {record['lr']:.3g}." if "lr" in record else ""
    return Dead(
        f"{' and '.join(bad)} not finite at step {step}; the weights are those of the step before.{lr} "
        "What to change: lower the learning rate, lengthen the warm-up, clip gradients, or try --precision 32."
    )
