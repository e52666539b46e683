"""Short versions of `benchmarks/kills.py`: killed runs end in the same bits, and signals end runs cleanly."""

import json
import subprocess
import sys
from typing import Any

import pytest


def told_by(*command: str) -> dict[str, Any]:
    ended = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, timeout=280, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    result: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return result


@pytest.mark.slow
def test_runs_that_are_killed_at_random_moments_end_in_the_same_bits() -> None:
    result = told_by("tests.faults.kills", "--kills", "20")
    assert result["kills"] == 20 and result["different"] == []


@pytest.mark.slow
def test_a_signal_to_the_whole_group_ends_a_run_cleanly_at_its_last_step() -> None:
    result = told_by("tests.faults.signals", "--times", "6")
    assert result["wrong"] == []


@pytest.mark.slow
def test_a_second_signal_ends_a_run_at_once_and_the_last_checkpoint_stands() -> None:
    result = told_by("tests.faults.signals", "--twice")
    assert result["went on after the first"]  # which is obeyed when the step is done
    assert result["code"] == 130 and result["seconds"] < 5
    assert result["step"] == 4  # saved every 4 steps; it was in the seventh
    assert "second signal, leaving at once; the last checkpoint stands" in result["told"]
    assert "Traceback" not in result["told"]
