"""One of two processes is killed, raises, or hangs: all end soon, and it is told which one and where."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

TINY = ["--encoder", "vit_mini_64", "--encoder-args", "{depth: 1, embed_dim: 32, num_heads: 2}", "--workers", "0"]
TINY += ["--mugs.hidden", "32", "--mugs.prototypes", "32", "--log-every", "1", "--probe-every-epochs", "0"]
TINY += ["--checkpoint-every-steps", "4"]


def run(tmp_path: Path, fault: str, *more: str) -> tuple[int, str, float, Path]:
    """Exit code, what was told, seconds after the fault's step was reached, and the folder."""
    out = tmp_path / "run"
    command = [sys.executable, "-m", "tests.faults.faulty", "pretrain", "scenes:32:40", "--out", str(out)]
    command += ["--epochs", "4", "--batch-size", "8", *TINY, *more]
    process = subprocess.Popen(
        command, env={**os.environ, "FAULT": fault}, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    log, faulty_step, began = out / "log.jsonl", int(fault.split(":")[2]), None
    while process.poll() is None:
        if began is None and log.exists() and len(log.read_text().splitlines()) >= faulty_step:
            began = time.monotonic()
        time.sleep(0.05)
    took = time.monotonic() - (began or 0)
    while living(process.pid):  # the others of its session
        assert time.monotonic() - (began or 0) < 60
        time.sleep(0.05)
    assert process.stderr is not None
    return process.returncode, process.stderr.read(), took, out


def living(session: int) -> list[str]:
    found = []
    for path in Path("/proc").iterdir():
        try:
            fields = (path / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if path.name.isdigit() and int(fields[3]) == session and fields[0] != "Z":
            found.append(path.name)
    return found


@pytest.mark.slow
def test_a_rank_that_is_killed_ends_the_run_and_is_named(tmp_path: Path) -> None:
    code, told, took, out = run(tmp_path, "kill:1:5", "--devices", "2")
    assert code != 0 and took < 30
    assert "rank 0 lost contact at step 5" in told and "rank 1 (process" in told and "is gone; it was at step" in told
    assert "Traceback" not in told
    assert (out / "checkpoints" / "step-00000004.json").exists()


@pytest.mark.slow
def test_a_rank_that_raises_ends_the_run_and_says_so_itself(tmp_path: Path) -> None:
    code, told, took, _ = run(tmp_path, "raise:1:5", "--devices", "2")
    assert code != 0 and took < 30
    assert "rank 1 failed at step 5 (training): KeyError" in told and "a mistake in one process" in told


@pytest.mark.slow
def test_a_rank_that_hangs_ends_the_run_and_is_named(tmp_path: Path) -> None:
    code, told, took, _ = run(tmp_path, "stop:1:5", "--devices", "2", "--timeout-seconds", "15")
    assert code != 0 and took < 40
    assert "rank 0 lost contact at step 5" in told or "rank 1 hangs at step 5 (training)" in told


@pytest.mark.slow
def test_a_nan_on_one_rank_stops_both_and_is_told_once(tmp_path: Path) -> None:
    code, told, _, out = run(tmp_path, "nan:1:5", "--devices", "2")
    assert code == 3 and told.count("not finite at step 5") == 1
    assert json.loads((out / "failure-rank1.json").read_text())["step"] == 5
