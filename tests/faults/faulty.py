"""The command line with a fault in one of its processes: FAULT="KIND:RANK:STEP", KIND one of raise, kill, stop, nan.

FAULT=raise:1:5 python -m tests.faults.faulty pretrain ...
"""

import os
import signal
import sys
import time
from typing import Any

import torch

from polygrain.cli import main
from polygrain.methods.base import Method

if __name__ == "__main__":
    kind, rank, step = os.environ["FAULT"].split(":")
    forward = Method.forward

    def faulty(self: Method, views: Any, now: Any) -> Any:
        terms = forward(self, views, now)
        if now.step == int(step) and os.environ.get("LOCAL_RANK", "0") == rank:
            if kind == "raise":
                raise KeyError("a mistake in one process")
            if kind == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if kind == "stop":
                time.sleep(3600)
            if kind == "nan":
                terms["loss"] = terms["loss"] * torch.tensor(float("nan"))
        return terms

    Method.forward = faulty  # type: ignore[method-assign]
    sys.exit(main())
