"""Where results go, tried before the work that they are of: hours of training are not for nothing."""

import os
import tempfile
from pathlib import Path


def prepare_folder(out: str) -> Path:
    """Makes a folder where there is none.

    Raises:
        ValueError: when it cannot be made or written into.
    """
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise ValueError(f"nothing can be written into {out!r} ({error.strerror}); name another folder") from error


def prepare_new_folder(out: str) -> Path:
    """Likewise, of a folder with nothing in it yet.

    Raises:
        ValueError: when something is there already, too.
    """
    folder = Path(out)
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise ValueError(f"{out!r} is there already; name a new folder")
    return prepare_folder(out)


def check_file(out: str) -> None:
    """Whether a file can be written here; its folder must be there.

    Raises:
        ValueError: when it cannot.
    """
    file = Path(out).absolute()
    if not file.parent.is_dir():
        raise ValueError(f"the folder of {out} is not there; make it first, or name another file")
    if file.is_dir():
        raise ValueError(f"{out} is a folder; name a file in it")
    if file.exists():
        if not os.access(file, os.W_OK):
            raise ValueError(f"{out} may not be written over; name another file")
        return
    try:
        with tempfile.TemporaryFile(dir=file.parent):
            return
    except OSError as error:
        raise ValueError(f"nothing can be written beside {out} ({error.strerror}); name another file") from error
