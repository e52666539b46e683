"""Proof on a person's own machine that resuming continues the same run, and that two devices train as one."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from polygrain.train import checkpoints

CLOCKS = ("images_per_second", "data_wait")  # readings that no two runs share
RANKS_TOLERANCE = 1e-3  # relative, of the loss in float32 after a few steps: sums in another order


class Verdict(NamedTuple):
    """What was found; `lines` for a person."""

    passed: bool
    lines: list[str]


def verify_resume(config: str, *, steps: int = 20, folder: Path | None = None) -> Verdict:
    """Trains `steps` steps at once, and again with SIGKILL in the middle and --resume; compares all bits.

    Args:
        config: the configuration of a run, as its config.yaml.
        folder: for the two runs; a temporary one by default.

    Raises:
        ValueError: when a run cannot be trained at all.
    """
    folder = folder or Path(tempfile.mkdtemp(prefix="polygrain-verify-"))
    whole, killed = folder / "whole", folder / "killed"
    options = ["--checkpoint-every-steps", str(max(1, steps // 2)), "--stop-after-steps", str(steps)]
    _train(config, whole, options)
    at = _kill_after(config, killed, options, steps // 2 + 1)
    _train(config, killed, [*options, "--resume"])
    one, other = _log(whole), _log(killed)
    shared = sorted({*one} & {*other})
    differing = [step for step in shared if _without_clocks(one[step]) != _without_clocks(other[step])]
    tensors = _different_tensors(_state(whole), _state(killed))
    passed = not differing and not tensors and shared == list(range(1, steps + 1))
    return Verdict(
        passed,
        [
            f"{steps} steps at once, and with SIGKILL after step {at} and --resume (runs in {folder}):",
            f"  log: {len(shared)} of {steps} steps in both, {len(differing)} differ"
            + (f", first {differing[0]}" if differing else ""),
            f"  final state: {'all tensors equal to the last bit' if not tensors else 'different: ' + tensors[0]}",
        ],
    )


def verify_ranks(config: str, *, steps: int = 10, folder: Path | None = None) -> Verdict:
    """Trains with one device and with two at the same batch size; compares losses and gradients.

    The order of sums differs, so the last digits may: they must agree within 0.1 %.

    Raises:
        ValueError: when a run cannot be trained at all.
    """
    folder = folder or Path(tempfile.mkdtemp(prefix="polygrain-verify-"))
    logs = []
    for devices in (1, 2):
        out = folder / f"{devices}-devices"
        _train(config, out, ["--stop-after-steps", str(steps), "--devices", str(devices)])
        logs.append(_log(out))
    lines, passed = [f"{steps} steps with one device and with two, the same batch (runs in {folder}):"], True
    for name in ("loss", "gradient_norm"):
        apart = [
            abs(one[name] - two[name]) / max(abs(one[name]), 1e-12) for one, two in zip(*map(_steps, logs), strict=True)
        ]
        passed = passed and max(apart) <= RANKS_TOLERANCE
        lines.append(f"  {name}: largest relative difference {max(apart):.2g} (allowed {RANKS_TOLERANCE:g})")
    return Verdict(passed, lines)


def _command(config: str, out: Path, options: list[str]) -> list[str]:
    fixed = ["--config", config, "--out", str(out), "--log-every", "1", "--probe-every-epochs", "0"]
    return [sys.executable, "-m", "polygrain.cli", "pretrain", *fixed, *options]


def _train(config: str, out: Path, options: list[str]) -> None:
    ended = subprocess.run(
        _command(config, out, options), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, check=False
    )
    if ended.returncode:
        told = ended.stderr.decode(errors="replace").strip().splitlines()
        raise ValueError(f"the run ended with exit code {ended.returncode}: {told[-1] if told else 'without a word'}")


def _kill_after(config: str, out: Path, options: list[str], step: int) -> int:
    """Starts a run and kills it with all its processes once its log has reached a step; returns the last step."""
    with (out.parent / "killed.err").open("wb") as told:
        process = subprocess.Popen(_command(config, out, options), stderr=told, start_new_session=True)
        while process.poll() is None:
            if (at := max(_log(out), default=0)) >= step:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                return at
            time.sleep(0.02)
    raise ValueError(f"the run ended before step {step}; see {out.parent / 'killed.err'}, or raise --steps")


def _log(out: Path) -> dict[int, dict[str, Any]]:
    """Records by step; a line that is being written is left out."""
    path = out / "log.jsonl"
    text = path.read_text() if path.exists() else ""
    records = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return {record["step"]: record for record in records if "loss" in record}


def _steps(log: Mapping[int, dict[str, Any]]) -> list[dict[str, Any]]:
    return [log[step] for step in sorted(log)]


def _without_clocks(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in CLOCKS}


def _state(out: Path) -> dict[str, Tensor]:
    state = checkpoints.load_newest(out).state
    if state is None:
        raise ValueError(f"{out} holds no checkpoint")
    return dict(_tensors({"method": state["method"], "optimizer": state["optimizer"]}, ""))


def _tensors(state: Any, name: str) -> list[tuple[str, Tensor]]:
    if isinstance(state, Tensor):
        return [(name, state)]
    entries = (
        state.items() if isinstance(state, Mapping) else enumerate(state) if isinstance(state, list | tuple) else ()
    )
    return [pair for key, value in entries for pair in _tensors(value, f"{name}/{key}")]


def _different_tensors(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> list[str]:
    """Names of tensors that are not equal bit for bit (a NaN equals the same NaN)."""
    names = sorted({*one, *other})
    return [name for name in names if name not in one or name not in other or not _same_bits(one[name], other[name])]


def _same_bits(one: Tensor, other: Tensor) -> bool:
    bits = [tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in (one, other)]
    return one.shape == other.shape and one.dtype == other.dtype and torch.equal(*bits)
