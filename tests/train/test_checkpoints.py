import errno
import json
import random
import shutil
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch

from polygrain.train import checkpoints


def state(step: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(step)
    return {"step": step, "method": {"weight": torch.randn(40, 8, generator=generator)}, "choices": {"name": "mugs"}}


def two(run: Path) -> Path:
    """A run with checkpoints of steps 4 and 8; the file of the newer one."""
    for step in (4, 8):
        checkpoints.save(run, step, state(step), keep=2)
    return checkpoints.path_of(run, 8)


def restored(run: Path) -> int:
    loaded = checkpoints.load_newest(run).state
    assert loaded is not None
    step = int(loaded["step"])
    assert torch.equal(loaded["method"]["weight"], state(step)["method"]["weight"])
    return step


def test_the_newest_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    two(tmp_path)
    assert restored(tmp_path) == 8
    assert checkpoints.load_newest(tmp_path).complaints == []


def spoiled(tmp_path: Path, spoil: Any, times: int) -> None:
    """Spoils the newest checkpoint in many ways; each time it must be refused aloud and the one before taken."""
    original = tmp_path / "original"
    newest = two(original).name
    for attempt in range(times):
        run = tmp_path / str(attempt)
        shutil.copytree(original, run)
        file = run / checkpoints.FOLDER / newest
        file.write_bytes(spoil(bytearray(file.read_bytes())))
        loaded = checkpoints.load_newest(run)
        assert loaded.state is not None and loaded.state["step"] == 4
        assert len(loaded.complaints) == 1 and newest in loaded.complaints[0]
        assert not file.exists() and file.with_name(newest + ".broken").exists()
        shutil.rmtree(run)


def test_a_file_cut_short_anywhere_falls_back_to_the_checkpoint_before(tmp_path: Path) -> None:
    rng = random.Random(0)
    spoiled(tmp_path, lambda data: data[: rng.randrange(len(data))], 200)


def test_a_flipped_bit_anywhere_is_found_before_a_weight_is_used(tmp_path: Path) -> None:
    rng = random.Random(1)

    def flip(data: bytearray) -> bytearray:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        return data

    spoiled(tmp_path, flip, 200)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"step": 8}'])
def test_a_broken_manifest_is_no_checkpoint(tmp_path: Path, content: str) -> None:
    two(tmp_path).with_suffix(".json").write_text(content)
    assert restored(tmp_path) == 4


def test_a_file_without_its_manifest_does_not_count(tmp_path: Path) -> None:
    two(tmp_path).with_suffix(".json").unlink()
    assert restored(tmp_path) == 4


@pytest.mark.parametrize("call", range(12))
def test_a_disk_that_fills_up_at_any_write_leaves_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    checkpoints.save(tmp_path, 4, state(4), keep=1)
    calls = iter(range(1000))

    def write(file: BinaryIO, data: bytes) -> None:
        if next(calls) == call:
            raise OSError(errno.ENOSPC, "No space left on device", file.name)
        file.write(data)

    monkeypatch.setattr(checkpoints, "_write_all", write)
    try:
        checkpoints.save(tmp_path, 8, state(8), keep=1)
    except OSError as error:
        assert error.errno == errno.ENOSPC
        assert restored(tmp_path) == 4
    else:
        assert next(calls) <= call and restored(tmp_path) == 8  # the writes were fewer than that
    assert not list((tmp_path / checkpoints.FOLDER).glob("*.tmp"))


def test_all_writes_of_a_checkpoint_are_among_those_that_were_made_to_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    original = checkpoints._write_all

    def write(file: BinaryIO, data: bytes) -> None:
        written.append(len(data))
        original(file, data)

    monkeypatch.setattr(checkpoints, "_write_all", write)
    checkpoints.save(tmp_path, 4, state(4), keep=1)
    assert len(written) >= 3  # the archive's parts, and the manifest


def test_too_little_room_is_told_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**6, 10**6 - 100, 100))  # type: ignore[attr-defined]
    with pytest.raises(OSError, match=r"needs 1,344 bytes, the disk has 100 free"):  # 1.05 * 40 * 8 * 4
        checkpoints.save(tmp_path, 12, state(12), keep=2)
    assert restored(tmp_path) == 8


def test_old_checkpoints_go_by_step_and_not_by_name_or_time(tmp_path: Path) -> None:
    for step in (99_999_999, 100_000_000, 9_900, 10_000):
        checkpoints.save(tmp_path, step, state(step), keep=2)
    assert [path.stem for path in checkpoints.manifests(tmp_path)] == ["step-99999999", "step-100000000"]


def test_the_newest_healthy_checkpoint_outlives_sick_ones(tmp_path: Path) -> None:
    for step, healthy in ((4, True), (8, True), (12, False), (16, False), (20, False)):
        checkpoints.save(tmp_path, step, state(step), keep=2, healthy=healthy)
    kept = [json.loads(path.read_text()) for path in checkpoints.manifests(tmp_path)]
    assert [(manifest["step"], manifest["healthy"]) for manifest in kept] == [(8, True), (16, False), (20, False)]
    assert sorted(path.stem for path in (tmp_path / checkpoints.FOLDER).glob("*.pt")) == [
        f"step-{step:08d}" for step in (8, 16, 20)
    ]


def test_what_a_killed_process_left_aside_is_removed(tmp_path: Path) -> None:
    two(tmp_path)
    (tmp_path / checkpoints.FOLDER / "step-00000012.pt.77.tmp").write_bytes(b"half")
    checkpoints.remove_unfinished(tmp_path)
    assert not list(tmp_path.rglob("*.tmp"))
