"""Signals that ask a run to end: noted when they come, obeyed between two steps."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ASKING = (signal.SIGTERM, signal.SIGINT, *((signal.SIGUSR1,) if hasattr(signal, "SIGUSR1") else ()))


class StopRequest:
    """Whether a signal has asked this process to end. A second one ends it at once."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def note(self, number: int, frame: FrameType | None) -> None:
        if self.signal is None:
            self.signal = number
            return
        # not an exception: it could come in the middle of a write, which is then left as a file of its own aside
        os.write(sys.stderr.fileno(), b"polygrain: second signal, leaving at once; the last checkpoint stands\n")
        os._exit(exit_code(number))


def exit_code(number: int) -> int:
    return 130 if number == signal.SIGINT else 143


@contextmanager
def listening() -> Iterator[StopRequest]:
    """Notes signals while it is open; only the main thread of a process may, elsewhere nothing is noted."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, request.note) for number in ASKING}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def leave_signals_to_the_trainer() -> None:
    """For a worker of the loader: a scheduler signals every process of a run, and the trainer needs its workers still.

    The first SIGTERM is left to the trainer, the next one ends the worker: it is the loader that cleans up.
    """
    for number in ASKING:
        signal.signal(number, signal.SIG_IGN)

    def next_time(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)

    signal.signal(signal.SIGTERM, next_time)
