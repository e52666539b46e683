"""Files that are whole or not there at all, whatever ends the process or the machine."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def write_durably(path: str | Path, write: Callable[[BinaryIO], None]) -> None:
    """Writes a file aside, flushes it to the disk and moves it to its place, over an older one.

    The folder must exist; permissions are those of any new file. When `write`, the disk or the process fails, what
    was at `path` before is untouched; an unfinished file is removed unless the process is killed.

    Args:
        write: puts the content into a file that is open for writing.

    Raises:
        ValueError: when `path` is something other than a file (a device would be replaced, a folder cannot be).
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is not a file, so nothing can be written in its place; name another")
    aside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with aside.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    _flush_folder(path.parent)


def _flush_folder(folder: Path) -> None:
    """Makes a rename last through a power cut; some network file systems and Windows know no such thing."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)
