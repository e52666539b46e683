"""Worker processes that look at images, of which one may crash or hang without taking the others along."""

import multiprocessing
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from polygrain.data.troubles import CRASH, STALL

Found = TypeVar("Found")
CHUNK = 16  # images that travel together
AHEAD = 3  # chunks that a worker has been given, so that it never waits for the next
IDLE = -1


class Lost(NamedTuple):
    """What happened to the process that looked at an image."""

    trouble: str  # CRASH or STALL
    reason: str


class Worker(Generic[Found]):
    """One process, what it was given, and since when it is at its present image."""

    def __init__(self, look: Callable[[int], Found], number: int) -> None:
        context = multiprocessing.get_context("forkserver")  # forks of a process that never ran torch's threads
        context.set_forkserver_preload([__name__, "polygrain.data.looking"])
        self.at: Any = context.RawValue("q", IDLE)  # shared with the process
        self.pipe, theirs = context.Pipe()
        arguments = (look, theirs, self.at)
        self.process = context.Process(target=_work, args=arguments, name=f"inspect-{number}", daemon=True)
        self.process.start()
        theirs.close()
        self.given: deque[list[int]] = deque()  # chunks whose results are still to come
        self.seen = (IDLE, time.monotonic())

    def give(self, chunk: list[int]) -> None:
        self.given.append(chunk)
        self.pipe.send(chunk)

    def stuck_for(self) -> float:
        """Seconds since it began with the image it is at; 0 while it has none."""
        now = time.monotonic()
        at = int(self.at.value)
        if at != self.seen[0] or at == IDLE:
            self.seen = (at, now)
        return now - self.seen[1]

    def end(self) -> None:
        self.process.kill()
        self.process.join(1)
        self.pipe.close()


def in_workers(
    look: Callable[[int], Found], images: NDArray[np.int64], workers: int, patience: float
) -> Iterator[tuple[int, Found | Lost]]:
    """What `look` finds in every image, in any order; `Lost` for one that its process did not survive.

    Args:
        look: travels to other processes (pickled), which begin by importing the main module.
        patience: seconds that one image may take.

    Raises:
        OSError: when a worker ends before its first image.
    """
    todo = deque(images[start : start + CHUNK].tolist() for start in range(0, len(images), CHUNK))
    crew = [Worker(look, number) for number in range(min(workers, len(todo)))]
    try:
        for worker in crew * AHEAD:
            if todo:
                worker.give(todo.popleft())
        while any(worker.given for worker in crew):
            ready = wait([worker.pipe for worker in crew if worker.given], timeout=min(1.0, patience / 4))
            for place, worker in enumerate(crew):
                lost: Lost | None = None
                if worker.pipe in ready:
                    try:
                        found = worker.pipe.recv()
                        yield from zip(worker.given.popleft(), found, strict=True)
                    except (EOFError, ConnectionResetError):
                        worker.process.join()
                        lost = Lost(CRASH, _ending(worker.process.exitcode))
                elif worker.given and worker.stuck_for() > patience:
                    lost = Lost(STALL, f"no result after {patience:g} s")
                if lost is not None:
                    at = int(worker.at.value)
                    if at == IDLE:
                        raise OSError(f"a worker process ended before its first image ({lost.reason})")
                    yield at, lost
                    todo.extendleft([i for i in chunk if i != at] for chunk in worker.given)
                    worker.end()
                    worker = crew[place] = Worker(look, place)
                while todo and len(worker.given) < AHEAD:
                    worker.give(todo.popleft())
    finally:
        for worker in crew:
            worker.end()


def _work(look: Callable[[int], Any], pipe: "Connection[Any, Any]", at: Any) -> None:
    """The life of a worker: until its parent hangs up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    torch.set_num_threads(1)
    try:
        while True:
            found = []
            for i in pipe.recv():
                at.value = i
                found.append(look(i))
            at.value = IDLE
            pipe.send(found)
    except (EOFError, BrokenPipeError):
        return


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        return f"the process was ended by signal {-code} ({signal.Signals(-code).name})"
    return f"the process ended with code {code}"
