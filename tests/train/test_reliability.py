"""What a run does when something goes wrong, end to end."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from polygrain.data.images import Images
from polygrain.data.loading import ViewBatches
from polygrain.data.scenes import Scenes
from polygrain.data.sources import open_images
from polygrain.methods.base import Method
from polygrain.train import checkpoints
from polygrain.train.loader import check_shared_memory, load
from polygrain.train.lock import lock
from polygrain.train.order import Order
from polygrain.train.settings import PretrainSettings
from polygrain.train.setup import Result, pretrain
from polygrain.train.stops import Dead, Lost, Unusable
from polygrain.views import Crops

VIT = {"embed_dim": 32, "depth": 2, "num_heads": 2, "img_size": 32}
MUGS = {
    "large_size": 32,
    "small_size": 16,
    "small_crops": 1,
    "hidden": 32,
    "predictor_hidden": 32,
    "out": 16,
    "prototype_dim": 16,
    "prototypes": 32,
    "queue_size": 64,
    "memory_size": 64,
    "warmup_epochs": 1,
}
IMAGES = Scenes(24, size=40).keep()


def run(out: Path, images: Images | None = None, **settings: Any) -> Result:
    options = {"epochs": 2, "batch_size": 8, "workers": 0, "log_every": 1, "threads": 1, **settings}
    chosen = PretrainSettings(data="", out=str(out), encoder="vit_tiny_64", encoder_args=VIT, **options)
    return pretrain(chosen, MUGS, None, IMAGES if images is None else images)


def newest(out: Path) -> dict[str, Any]:
    state = checkpoints.load_newest(out).state
    assert state is not None
    return state


def tensors(state: Any) -> Iterator[Tensor]:
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, dict):
        for value in state.values():
            yield from tensors(value)


def same(one: Any, other: Any) -> bool:
    pairs = list(zip(tensors(one), tensors(other), strict=True))
    return bool(pairs) and all(torch.equal(*pair) for pair in pairs)


@pytest.fixture
def nan_at_step_4(monkeypatch: pytest.MonkeyPatch) -> None:
    forward = Method.forward

    def faulty(self: Method, views: Any, now: Any) -> dict[str, Tensor]:
        terms = forward(self, views, now)
        if now.step == 4:
            terms["loss"] = terms["loss"] * torch.tensor(float("nan"))
        return terms

    monkeypatch.setattr(Method, "forward", faulty)


@pytest.mark.usefixtures("nan_at_step_4")
def test_a_nan_stops_the_run_and_keeps_what_is_needed_to_look_into_it(tmp_path: Path) -> None:
    with pytest.raises(Dead, match="loss not finite at step 4; the weights are those of the step before") as caught:
        run(tmp_path / "run", checkpoint_every_epochs=1)
    assert caught.value.exit_code == 3
    told = json.loads((tmp_path / "run" / "failure-rank0.json").read_text())
    expected = Order(images=24, batch_size=8, seed=0).batches(4, 5)
    assert told["step"] == 4 and told["images"] == [image for _, image in next(expected)]
    assert newest(tmp_path / "run")["step"] == 3  # the end of the first epoch


@pytest.mark.usefixtures("nan_at_step_4")
def test_a_step_without_a_number_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path / "before", stop_after_steps=4)
    run(tmp_path / "after", stop_after_steps=5, keep_going=True)
    before, after = newest(tmp_path / "before"), newest(tmp_path / "after")
    assert after["step"] == 5
    assert same(before["method"], after["method"])  # weights, teachers, queues, memories, pointers, centre
    assert same(before["optimizer"]["state"], after["optimizer"]["state"])


class Black(Images):
    def name(self, i: int) -> str:
        return f"black {i}"

    def load(self, i: int) -> Tensor:
        return torch.zeros(3, 40, 40, dtype=torch.uint8)


def test_black_images_stop_a_run_with_the_right_words(tmp_path: Path) -> None:
    with pytest.raises(Dead, match="the backbone's vector is the same for all images") as caught:
        run(tmp_path / "run", Black(24), epochs=40)  # 120 steps: patience 30
    assert caught.value.exit_code == 3 and "polygrain inspect" in str(caught.value)
    record = json.loads((tmp_path / "run" / "failure-rank0.json").read_text())
    assert record["step"] < 60 and record["record"]["features/pooled_spread"] == 0
    manifests = [json.loads(path.read_text()) for path in checkpoints.manifests(tmp_path / "run")]
    assert manifests[0]["healthy"]  # the one from before the first look


def test_keep_going_trains_black_images_to_the_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(tmp_path / "run", Black(24), epochs=15, keep_going=True)
    assert result.record["features/pooled_spread"] == 0
    assert "warning: the features are dead" in capsys.readouterr().err


def test_a_torn_checkpoint_falls_back_and_the_run_still_ends_in_the_same_bits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path / "whole")
    run(tmp_path / "torn", stop_after_steps=5, checkpoint_every_steps=2)
    file = checkpoints.path_of(tmp_path / "torn", 5)
    file.write_bytes(file.read_bytes()[:-1000])
    run(tmp_path / "torn", resume=True)
    assert "step-00000005.pt is broken" in capsys.readouterr().err
    assert same(newest(tmp_path / "whole")["method"], newest(tmp_path / "torn")["method"])
    steps = [json.loads(line)["step"] for line in (tmp_path / "torn" / "log.jsonl").read_text().splitlines()]
    assert [step for step in steps if steps.count(step) > 2] == []  # a record and a probe at most
    losses = {
        name: {
            r["step"]: r["loss"]
            for r in map(json.loads, (tmp_path / name / "log.jsonl").read_text().splitlines())
            if "loss" in r
        }
        for name in ("whole", "torn")
    }
    assert losses["whole"] == losses["torn"]


def test_a_torn_line_of_the_log_goes(tmp_path: Path) -> None:
    run(tmp_path / "run", stop_after_steps=3)
    with (tmp_path / "run" / "log.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    run(tmp_path / "run", resume=True)
    records = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records if "loss" in record] == [1, 2, 3, 4, 5, 6]


def test_resume_starts_a_run_that_has_not_begun_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path / "run", resume=True, stop_after_steps=1)
    assert "Nothing to resume" in capsys.readouterr().err
    assert newest(tmp_path / "run")["step"] == 1


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"batch_size": 4}, "batch_size was 8, is now 4"),
        ({"seed": 1}, "seed was 0, is now 1"),
        ({"images": Scenes(25, size=40)}, "24 then, 25 now"),
    ],
)
def test_another_run_is_not_continued(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    run(tmp_path / "run", stop_after_steps=2)
    with pytest.raises(ValueError, match=told):
        run(tmp_path / "run", resume=True, **change)


def test_checkpoints_that_are_all_broken_are_an_error(tmp_path: Path) -> None:
    run(tmp_path / "run", stop_after_steps=2)
    for path in (tmp_path / "run" / "checkpoints").glob("*.pt"):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"no checkpoint in .* is sound"):
        run(tmp_path / "run", resume=True)


def test_what_changes_the_last_bits_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path / "run", stop_after_steps=2)
    before = torch.get_num_threads()
    run(tmp_path / "run", resume=True, threads=2, stop_after_steps=3)
    torch.set_num_threads(before)
    assert "not exact to the last bit: threads was 1, is now 2" in capsys.readouterr().err


def test_a_folder_has_one_run_at_a_time(tmp_path: Path) -> None:
    hold = (
        "import sys; sys.path.insert(0, sys.argv[2]); from polygrain.train.lock import lock; from pathlib import Path; "
        "held = lock(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", hold, str(tmp_path), "src"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None and other.stdout.readline() == "held\n"
    with pytest.raises(ValueError, match=f"is being written by another run \\(process {other.pid} on "):
        lock(tmp_path)
    other.kill()
    other.wait()
    lock(tmp_path).close()  # a killed process leaves no lock


def test_an_output_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a letter")
    with pytest.raises(ValueError, match="is a file; choose another --out"):
        run(tmp_path / "run")
    assert (tmp_path / "run").read_text() == "a letter"


@pytest.fixture
def spoiled(tmp_path: Path) -> Path:
    """24 pictures, two of which are cut in half."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(24):
        pixels = np.random.default_rng(i).integers(0, 255, (40, 40, 3), dtype=np.uint8)
        path = folder / f"{i:02}.png"
        Image.fromarray(pixels).save(path)
        if i in (3, 7):
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return folder


def test_too_many_undecodable_images_stop_before_training(tmp_path: Path, spoiled: Path) -> None:
    with pytest.raises(ValueError, match=r"2 cannot be used \(8\.33%\).*--max-bad-fraction 0\.01.*--quarantine"):
        run(tmp_path / "run", open_images(spoiled))
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_what_is_in_quarantine_is_left_out(tmp_path: Path, spoiled: Path) -> None:
    (tmp_path / "list").write_text("03.png\ttruncated\n07.png\ttruncated\n")
    result = run(tmp_path / "run", open_images(spoiled), quarantine=str(tmp_path / "list"), stop_after_steps=2)
    assert newest(result.out)["data"]["images"] == 22


def test_images_that_spoil_during_training_end_it(tmp_path: Path, spoiled: Path) -> None:
    images = open_images(spoiled)
    images.read(3), images.read(7)  # found broken, and replaced
    batches = load(
        views_of(images), Order(images=24, batch_size=8, seed=0), start_step=0, stop_step=3, workers=0, timeout=0,
        max_bad_fraction=0.05, cuda=False,
    )  # fmt: skip
    with pytest.raises(Unusable, match=r"2 of 24 images cannot be decoded so far \(2 truncated\)") as caught:
        next(batches)
    assert caught.value.exit_code == 2


def views_of(images: Images) -> Any:
    crops = Crops(name="large", count=1, size=16, scale=(0.5, 1.0), recipes=("byol_a",))
    return ViewBatches(images, [crops], seed=0)


@pytest.mark.parametrize("channels", [1, 5])
def test_images_of_other_numbers_of_channels_train(
    tmp_path: Path, channels: int, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "bands"
    folder.mkdir()
    for i in range(16):
        generator = np.random.default_rng(i)
        np.save(folder / f"{i}.npy", generator.integers(0, 200, (channels, 40, 40), dtype=np.uint8))
    result = run(tmp_path / "run", open_images(folder, channels), channels=channels, epochs=1)
    assert result.encoder.channels == channels
    choices = newest(result.out)["choices"]
    # uniform over 0..199: mean 99.5 / 255, std sqrt((200^2 - 1) / 12) / 255
    assert choices["mean"] == pytest.approx([99.5 / 255] * channels, abs=0.01)
    assert choices["std"] == pytest.approx([57.73 / 255] * channels, abs=0.01)
    assert "hue" in capsys.readouterr().err


class Dying(Scenes):
    """A source whose worker meets a bad end at image 5."""

    end = ""

    def load(self, i: int) -> Tensor:
        if i == 5:
            if self.end == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            elif self.end == "exit":
                os._exit(3)
            time.sleep(3600)
        return super().load(i)


@pytest.mark.parametrize(
    ("end", "told"),
    [
        ("kill", "a worker was killed"),
        ("exit", "a worker ended with exit code 3"),
        ("hang", "no worker delivered a batch for 2 s"),
    ],
)
def test_a_worker_that_ends_badly_is_named_with_what_it_had_in_hand(end: str, told: str) -> None:
    images = Dying(8, size=40)
    images.end = end
    batches = load(
        views_of(images), Order(images=8, batch_size=8, seed=0), start_step=0, stop_step=1, workers=1, timeout=2,
        max_bad_fraction=1.0, cuda=False,
    )  # fmt: skip
    first = images.name(next(Order(images=8, batch_size=8, seed=0).batches(0, 1))[0][1])
    with pytest.raises(Lost, match=told) as caught:
        next(batches)
    assert caught.value.exit_code == 5 and repr(first) in str(caught.value) and "--resume" in str(caught.value)


def test_shared_memory_that_is_too_small_is_told_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(2**24, 0, 2**20))  # type: ignore[attr-defined]
    views = views_of(IMAGES)  # 16 x 16 x 3 x 4 bytes an image
    with pytest.raises(ValueError, match=r"4 workers keep up to 4 MiB .* has 1 MiB free; take --workers 1"):
        check_shared_memory(views, 80, 4, tmp_path)  # 4 workers x 4 batches x 80 x 3,072 bytes = 3.75 MiB
    check_shared_memory(views, 80, 1, tmp_path)


def test_a_folder_that_vanishes_under_a_run_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = Method.forward

    def vanishing(self: Method, views: Any, now: Any) -> dict[str, Tensor]:
        if now.step == 4:
            shutil.rmtree(tmp_path / "run")
        return forward(self, views, now)

    run(tmp_path / "undisturbed")
    monkeypatch.setattr(Method, "forward", vanishing)
    run(tmp_path / "run")
    assert same(newest(tmp_path / "undisturbed")["method"], newest(tmp_path / "run")["method"])
    assert (tmp_path / "run" / "backbone.safetensors").exists()
    records = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records if "loss" in record] == [5, 6]
