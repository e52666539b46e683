"""Where records go besides the JSON lines."""

import json
from pathlib import Path

import pytest

from polygrain.train import logging
from polygrain.train.logging import Log

RECORDS: list[dict[str, float | int | str]] = [
    {"loss": 2.5, "instance/info_nce": 1.25, "note": "words are left out"},
    {"loss": 2.0, "instance/info_nce": 1.0},
]


def test_tensorboard_gets_every_number_of_every_record_at_its_step(tmp_path: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    log = Log(tmp_path, steps=20, start=0, loggers=["tensorboard"])
    for step, record in zip((10, 20), RECORDS, strict=True):
        log.write(record, step)
    log.close()
    events = reader.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert sorted(events.Tags()["scalars"]) == ["instance/info_nce", "loss"]
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(10, 2.5), (20, 2.0)]
    assert [event.value for event in events.Scalars("instance/info_nce")] == [1.25, 1.0]
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines == [{"step": step, **record} for step, record in zip((10, 20), RECORDS, strict=True)]


def test_a_logger_that_does_not_come_up_is_told_in_one_line(tmp_path, monkeypatch):
    class Offline:
        def __init__(self, run):
            raise RuntimeError("no route\nto host")

    monkeypatch.setitem(logging.SINKS, "wandb", Offline)
    with pytest.raises(ValueError, match="--loggers wandb cannot start: no route to host"):
        Log(tmp_path, steps=20, start=0, loggers=["wandb"])
