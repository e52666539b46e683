"""One run per folder: a lock that ends with the process that holds it."""

import fcntl
import json
import os
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

FILE = ".lock"


def lock(folder: Path) -> TextIO:
    """Takes the folder for this process, until the file that is returned is closed or the process ends.

    The lock is the operating system's own (POSIX): forked workers do not inherit it, and a killed process leaves none.

    Raises:
        ValueError: when another process has it; says which.
    """
    file = (folder / FILE).open("a+")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.seek(0)
        holder = _holder(file.read())
        file.close()
        raise ValueError(
            f"{folder} is being written by another run ({holder}); wait for it, or choose another --out"
        ) from error
    file.seek(0)
    file.truncate()
    json.dump({"pid": os.getpid(), "host": socket.gethostname(), "since": f"{datetime.now(UTC):%F %T} UTC"}, file)
    file.flush()
    return file


def _holder(content: str) -> str:
    try:
        told = json.loads(content)
        return f"process {told['pid']} on {told['host']}, since {told['since']}"
    except (ValueError, KeyError, TypeError):
        return "a process that left no name"
