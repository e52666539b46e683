"""How fast a run goes, and how much of its time it waits for data."""

import time as clock
from collections.abc import Iterator
from contextlib import contextmanager


class Pace:
    """Counts from one reading to the next; what is not training (measuring, saving) begins a new count."""

    def __init__(self, step: int) -> None:
        self.restart(step)

    def restart(self, step: int) -> None:
        self._since, self._waited, self._step = clock.perf_counter(), 0.0, step

    @contextmanager
    def waiting(self) -> Iterator[None]:
        began = clock.perf_counter()
        yield
        self._waited += clock.perf_counter() - began

    def read(self, step: int, batch_size: int) -> dict[str, float]:
        """Images per second and the share of time spent waiting, since the last reading."""
        seconds = clock.perf_counter() - self._since
        readings = {
            "images_per_second": (step - self._step) * batch_size / seconds,
            "data_wait": self._waited / seconds,
        }
        self.restart(step)
        return readings
