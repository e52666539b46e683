"""Why a run ended before its end, and the exit code that tells a scheduler so. Imports nothing heavy."""


class Stopped(Exception):
    """A run that ended early; the message says why, in words for a person. The newest good checkpoint is kept."""

    exit_code = 1


class Dead(Stopped):
    """The features collapsed, or a loss or gradient is no number."""

    exit_code = 3


class Unusable(Stopped):
    """Too many images cannot be decoded."""

    exit_code = 2


class Unsaved(Stopped):
    """The run cannot write what it must keep."""

    exit_code = 4


class Lost(Stopped):
    """A process of the run died, hung or lost contact."""

    exit_code = 5


class Interrupted(Stopped):
    """A signal asked the run to end; its state is saved and `--resume` continues it.

    Args:
        exit_code: 128 and the number of the signal, as shells have it: 130 for Ctrl-C, 143 for all others.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code
