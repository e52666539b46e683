"""When a run is saved, and what happens when the disk refuses."""

import tempfile
import time as clock
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from polygrain.train import checkpoints
from polygrain.train.stops import Unsaved

LAST_TRIES = 4  # at the end of a run, 1, 2 and 4 seconds apart
LONGEST_WAIT = 600.0  # seconds between tries while the run goes on


class Keeper:
    """Saves a run every so many steps and minutes; a failure is told and tried again, never the end of the run.

    Args:
        write_backbone: given a folder and a step, writes there the file that evaluation and export read.
    """

    def __init__(
        self,
        folder: Path,
        *,
        every_steps: Sequence[int],
        every_minutes: float,
        keep: int,
        write_backbone: Callable[[Path, int], None],
        say: Callable[[str], None],
    ) -> None:
        self._folder, self._every_seconds, self._keep = folder, every_minutes * 60, keep
        self._every_steps = tuple(every_steps)
        self._write_backbone, self._say = write_backbone, say
        self._failures = 0
        self._next = clock.monotonic() + self._every_seconds
        self.seconds = 0.0  # spent in saving so far

    def due(self, done: int) -> bool:
        """Whether it is time, after `done` steps."""
        at_a_step = any(done % steps == 0 for steps in self._every_steps) and not self._failures
        return at_a_step or clock.monotonic() >= self._next

    def save(self, step: int, state: Callable[[], Mapping[str, Any]], *, healthy: bool) -> None:
        """Saves while the run goes on; a disk that refuses is asked again later, each time after a longer while."""
        began = clock.monotonic()
        try:
            self._write(self._folder, step, state(), healthy)
        except OSError as error:
            self._failures += 1
            wait = min(LONGEST_WAIT, 10.0 * 2**self._failures)
            self._say(f"could not save step {step}: {_told(error)}; training goes on, next try in {wait:.0f} s")
            self._next = clock.monotonic() + wait
        else:
            if self._failures:
                self._say(f"saved step {step}, after {self._failures} failures")
            self._failures = 0
            self._next = clock.monotonic() + self._every_seconds
        self.seconds += clock.monotonic() - began

    def save_last(self, step: int, state: Callable[[], Mapping[str, Any]], *, healthy: bool) -> None:
        """Saves what will not come again: several tries, then a temporary folder.

        Raises:
            Unsaved: when the run's own folder cannot be written; says where the state is instead.
        """
        content = state()
        for attempt in range(LAST_TRIES):
            if attempt:
                clock.sleep(2.0 ** (attempt - 1))
            try:
                self._write(self._folder, step, content, healthy)
                return
            except OSError as error:
                problem = error
                self._say(f"could not save step {step}: {_told(error)}")
        elsewhere = Path(tempfile.mkdtemp(prefix="polygrain-"))
        try:
            self._write(elsewhere, step, content, healthy)
        except OSError as error:
            raise Unsaved(
                f"step {step} is not saved: {_told(problem)}; nor in {elsewhere}: {_told(error)}. "
                f"The checkpoints in {self._folder} stand; make room and --resume from them"
            ) from problem
        raise Unsaved(
            f"step {step} could not be saved in {self._folder} ({_told(problem)}), but in {elsewhere}: "
            f"make room, move its contents there, then --resume"
        ) from problem

    def _write(self, folder: Path, step: int, state: Mapping[str, Any], healthy: bool) -> None:
        checkpoints.save(folder, step, state, keep=self._keep, healthy=healthy)
        self._write_backbone(folder, step)


def _told(error: OSError) -> str:
    return f"{error.strerror or error} ({error.filename})" if error.filename else error.strerror or str(error)
