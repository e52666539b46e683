import errno
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from polygrain.train import checkpoints, keeping
from polygrain.train.keeping import Keeper
from polygrain.train.stops import Unsaved


class Clock:
    """Stands for the clocks; sleeping moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(keeping, "clock", clock)
    return clock


def keeper(folder: Path, told: list[str], **options: Any) -> Keeper:
    return Keeper(
        folder,
        **{"every_steps": [100], "every_minutes": 10.0, "keep": 2, **options},
        write_backbone=lambda into, step: None,
        say=told.append,
    )


def full_disk(monkeypatch: pytest.MonkeyPatch, folder: Path | None) -> None:
    """Nothing can be written in this folder, or in any."""
    save = checkpoints.save

    def refuse(run: Path, *arguments: Any, **options: Any) -> None:
        if folder is None or run == folder:
            raise OSError(errno.ENOSPC, "No space left on device", str(run))
        save(run, *arguments, **options)

    monkeypatch.setattr(checkpoints, "save", refuse)


def test_it_is_time_at_the_step_and_at_the_minute(tmp_path: Path, clock: Clock) -> None:
    keeps = keeper(tmp_path, [])
    assert [step for step in range(1, 301) if keeps.due(step)] == [100, 200, 300]
    clock.now += 599
    assert not keeps.due(50)
    clock.now += 1
    assert keeps.due(50)
    keeps.save(50, lambda: {"step": 50}, healthy=True)
    assert not keeps.due(51)


def test_a_full_disk_is_told_and_tried_again_later_each_time_after_a_longer_while(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    keeps = keeper(tmp_path, told)
    with monkeypatch.context() as broken:
        full_disk(broken, tmp_path)
        keeps.save(100, lambda: {"step": 100}, healthy=True)
        assert "No space left on device" in told[0] and "next try in 20 s" in told[0]
        clock.now += 19
        assert not keeps.due(200)  # not at the next step either: a step may be a moment
        clock.now += 1
        assert keeps.due(201)
        keeps.save(201, lambda: {"step": 201}, healthy=True)
        assert "next try in 40 s" in told[1]
    clock.now += 40
    keeps.save(250, lambda: {"step": 250}, healthy=True)
    assert "saved step 250, after 2 failures" in told[2]
    assert keeps.due(300)


def test_the_last_state_goes_to_a_temporary_folder_when_the_runs_own_refuses(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setattr(tempfile, "mkdtemp", lambda prefix: str(elsewhere))
    full_disk(monkeypatch, run)
    with pytest.raises(Unsaved, match=r"could not be saved.*but in .*elsewhere") as caught:
        keeper(run, []).save_last(7, lambda: {"step": 7}, healthy=True)
    assert caught.value.exit_code == 4
    assert checkpoints.load_newest(elsewhere).state == {"step": 7}
    assert clock.now == 1000 + 1 + 2 + 4


def test_when_nothing_can_be_written_the_run_says_what_stands(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    full_disk(monkeypatch, None)
    monkeypatch.setattr(tempfile, "mkdtemp", lambda prefix: str(tmp_path / "elsewhere"))
    with pytest.raises(Unsaved, match=r"step 7 is not saved.*checkpoints in .* stand"):
        keeper(tmp_path / "run", []).save_last(7, lambda: {"step": 7}, healthy=True)


def test_the_wall_clock_has_no_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keeps = keeper(tmp_path, [])
    for jump in (-3600.0, 86400.0):
        now = time.time() + jump
        monkeypatch.setattr(time, "time", lambda now=now: now)
        assert not keeps.due(50)
