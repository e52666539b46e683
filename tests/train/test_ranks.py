"""What a rank says of itself, in a file that others read."""

import json
import threading
import time
from pathlib import Path

import pytest
import torch.distributed as dist

from polygrain import distributed
from polygrain.train.ranks import FOLDER, Pulse


def test_a_beat_on_its_way_does_not_take_back_that_a_rank_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    monkeypatch.setattr(dist, "new_group", lambda **_: None)
    writes = threading.Event()

    class Slow(Pulse):
        def _tell(self, still: float, *, ended: bool = False) -> None:
            if threading.current_thread().name == "pulse":
                writes.set()
                time.sleep(0.2)  # a disk that takes its time
            super()._tell(still, ended=ended)

    pulse = Slow(tmp_path, patience=60)
    assert writes.wait(5)
    pulse.stop(well=True)
    assert not [thread for thread in threading.enumerate() if thread.name == "pulse"]
    time.sleep(0.3)
    assert json.loads((tmp_path / FOLDER / "0.json").read_text())["ended"]
