"""The command line. Heavy modules are imported by the verb that needs them, so that `--help` answers at once."""

import difflib
import os
import stat
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

from jsonargparse import set_parsing_settings

from polygrain.commands.compare import compare
from polygrain.commands.demo import demo
from polygrain.commands.embed import embed
from polygrain.commands.evaluate import evaluate
from polygrain.commands.export import export
from polygrain.commands.inspect import inspect
from polygrain.commands.methods import methods
from polygrain.commands.pretrain import pretrain
from polygrain.commands.report import report
from polygrain.commands.verify import verify
from polygrain.train.stops import Lost, Stopped

OUR_ERRORS = (ValueError, OSError)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb; returns the exit code.

    0; 2 after a mistake that a person can mend, told in one line; 3 where features died or a loss is no number, 4 where
    what must be kept could not be written, 5 where a process of the run was lost, 130 and 143 after a signal.
    """
    # before torch is loaded: threads that spin while another process has their core made runs many times slower
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    if arguments[0] == "--version":
        print(version("polygrain"))
        return 0
    verb = arguments[0]
    set_parsing_settings(import_path_denylist=["*"])  # else a value such as {class_path: module.name} imports it
    try:
        if verb not in VERBS:
            near = difflib.get_close_matches(verb, VERBS, n=1)
            raise ValueError(f"unknown command {verb!r}" + (f"; did you mean {near[0]!r}?" if near else "; see --help"))
        VERBS[verb](arguments[1:])
    except OUR_ERRORS as error:
        print(f"polygrain{' ' + verb if verb in VERBS else ''}: error: {told(error)}", file=sys.stderr)
        return 2
    except Stopped as stopped:
        from polygrain.distributed import rank

        if rank() > 0 and not isinstance(stopped, Lost):
            return 0  # all ranks stop for the same reason, and rank 0 speaks for them
        print(f"polygrain {verb}: {stopped}", file=sys.stderr)
        return stopped.exit_code
    except KeyboardInterrupt:
        print("polygrain: interrupted", file=sys.stderr)
        return 130
    return 0


def told(error: Exception) -> str:
    """An error as a person can use it: of a file, its name, and whose it is where that is the trouble."""
    if not isinstance(error, OSError) or not error.filename:
        return str(error)
    owner = ""
    if isinstance(error, PermissionError):
        with suppress(OSError, KeyError):
            status = Path(error.filename).stat()
            owner = f"; it belongs to {Path(error.filename).owner()}, with mode {stat.S_IMODE(status.st_mode):04o}"
    return f"{error.strerror}: {error.filename}{owner}"


def overview() -> str:
    lines = [f"  {name:<10} {(verb.__doc__ or '').splitlines()[0]}" for name, verb in VERBS.items()]
    return "\n".join(
        [
            "polygrain: self-supervised pretraining of vision backbones at every granularity",
            "",
            "usage: polygrain VERB ... (polygrain VERB --help for its options)",
            "",
            *lines,
        ]
    )


VERBS: dict[str, Callable[[list[str]], None]] = {
    "demo": demo,
    "pretrain": pretrain,
    "evaluate": evaluate,
    "compare": compare,
    "embed": embed,
    "report": report,
    "inspect": inspect,
    "export": export,
    "methods": methods,
    "verify": verify,
}


if __name__ == "__main__":
    sys.exit(main())
