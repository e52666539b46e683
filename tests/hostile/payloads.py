"""Files that would leave a canary behind if any code in them ran, and pickles made opcode by opcode."""

import argparse
import builtins
import io
import os
import pickle
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


class Calls:
    """Pickles as a call of a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def touch(canary: Path) -> str:
    return f"open({str(canary)!r}, 'w').close()"


def payloads(canary: Path) -> dict[str, Any]:
    """By name: an object that touches the canary when it is unpickled in the ordinary way."""
    shell = f"touch {canary}"
    inner = pickle.dumps(Calls(os.system, shell))
    file = io.BytesIO()
    torch.save(Calls(os.system, shell), file, _use_new_zipfile_serialization=False)
    holder = argparse.Namespace(lr=0.1)
    holder.hook = Calls(os.system, shell)
    return {
        "os.system": Calls(os.system, shell),
        "eval": Calls(eval, touch(canary)),
        "exec": Calls(builtins.exec, touch(canary)),
        "nested pickle": Calls(pickle.loads, inner),
        "nested bytes": Calls(torch.storage._load_from_bytes, file.getvalue()),
        "subprocess": Calls(subprocess.check_call, ["touch", str(canary)]),
        "call inside a Namespace": holder,
        "getattr": Calls(getattr, os, "system"),
    }


def checkpoint(payload: Any) -> dict[str, Any]:
    """A checkpoint that looks like one of a small backbone, with something else in it."""
    return {"teacher": {"backbone.patch_embed.proj.weight": torch.zeros(8, 3, 4, 4)}, "args": payload}


def doubled(levels: int) -> bytes:
    """A pickle of a list that holds a list twice, and so on: 2 ** levels entries in a few bytes."""
    level = (b"]q%c(h%ch%ce" % (i + 1, i, i) for i in range(levels))
    return b"".join([b"\x80\x02]q\x00", *level, b"."])
