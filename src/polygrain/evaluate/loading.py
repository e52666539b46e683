"""What worker processes load, and what they fail at."""

from collections.abc import Iterable, Iterator
from typing import Any

FROM_A_WORKER = "in DataLoader worker process"


def from_workers(loader: Iterable[Any]) -> Iterator[Any]:
    """The batches of a `DataLoader`; an error of a worker in its own one line, as if nothing had stood in between.

    Torch puts its account of where, over many lines, into the message.
    """
    try:
        yield from loader
    except (ValueError, OSError) as error:
        text = str(error)
        if FROM_A_WORKER not in text:
            raise
        raise type(error)(text.strip().splitlines()[-1].partition(": ")[2]) from error
