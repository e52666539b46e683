"""Bytes from a disk that may be far away, broken or changing."""

import errno
import os
import stat
import time
from collections.abc import Callable

from polygrain.data.troubles import Unreadable

OURS_TO_MEND = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)  # the process is short of something; the file is fine
PASSING = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN)  # as networks have them
PAUSES = (0.1, 0.4, 1.6)  # seconds before each further try
LARGEST_FILE = 2**31  # bytes


def read_file(path: bytes) -> bytes:
    """A whole file.

    Raises:
        Unreadable: when it cannot be had, is no regular file, or exceeds 2 GiB.
        OSError: when this process is short of files or memory.
    """
    return patiently(lambda: _whole(path))


def patiently(read: Callable[[], bytes]) -> bytes:
    """What `read` gives, asked again up to three times where the reason may pass.

    Raises:
        Unreadable: with the reason and its errno.
    """
    pauses = list(PAUSES)
    while True:
        try:
            return read()
        except OSError as error:
            if error.errno in OURS_TO_MEND:
                raise
            if error.errno not in PASSING or not pauses:
                raise Unreadable(f"{error.strerror or error} (errno {error.errno})") from error
        time.sleep(pauses.pop(0))


def _whole(path: bytes) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe of that name must not hold us up
    try:
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode):
            raise Unreadable("not a regular file any more")
        if state.st_size > LARGEST_FILE:
            raise Unreadable(f"the file has {state.st_size:,} bytes, more than any image within the limits")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read()
    finally:
        os.close(descriptor)
