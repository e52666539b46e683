import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from polygrain.data.scenes import Scenes
from polygrain.train.building import untrained
from polygrain.train.settings import PretrainSettings
from polygrain.train.setup import Result, pretrain
from polygrain.weights.backbone import load_encoder

ENCODER = {"embed_dim": 32, "depth": 2, "num_heads": 2, "img_size": 32, "drop_path_rate": 0.1}
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


def run(out: Path, method: dict[str, Any] | None = None, local: float = 0.0, **settings: Any) -> Result:
    chosen = PretrainSettings(
        data="scenes",
        out=str(out),
        encoder="vit_tiny_64",
        encoder_args=ENCODER,
        **{"epochs": 2, "batch_size": 8, "workers": 0, "log_every": 1, "threads": 1, **settings},
    )
    return pretrain(chosen, {**MUGS, **(method or {})}, {"local": {"weight": local, "width": 16}}, Scenes(24, size=40))


def weights(result: Result) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in result.method.state_dict().items()}


def losses(out: Path) -> list[float]:
    return [r["loss"] for r in map(json.loads, (out / "log.jsonl").read_text().splitlines()) if "loss" in r]


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    different = [name for name in one if not torch.equal(one[name], other[name])]
    assert not different


def test_a_run_leaves_a_backbone_a_log_and_its_resolved_choices(tmp_path: Path) -> None:
    result = run(tmp_path / "run", local=0.25)
    encoder = load_encoder(tmp_path / "run")
    teacher = result.method.backbone.state_dict()
    assert_same(dict(encoder.state_dict()), {name: teacher[name] for name in encoder.state_dict()})
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert config["mugs"]["queue_size"] == 64 and config["local"]["weight"] == 0.25 and config["epochs"] == 2
    assert len(losses(tmp_path / "run")) == 6


def test_the_same_seed_gives_the_same_run_whatever_the_number_of_workers(tmp_path: Path) -> None:
    assert_same(weights(run(tmp_path / "a")), weights(run(tmp_path / "b", workers=2)))
    assert losses(tmp_path / "a") == losses(tmp_path / "b")


def test_another_seed_gives_another_run(tmp_path: Path) -> None:
    run(tmp_path / "a", stop_after_steps=1)
    run(tmp_path / "b", stop_after_steps=1, seed=1)
    assert losses(tmp_path / "a") != losses(tmp_path / "b")


def test_a_resumed_run_ends_in_the_same_weights_to_the_last_bit(tmp_path: Path) -> None:
    whole = weights(run(tmp_path / "whole", local=0.1))
    run(tmp_path / "halves", local=0.1, stop_after_steps=4)  # in the middle of the second epoch
    assert_same(weights(run(tmp_path / "halves", local=0.1, resume=True)), whole)
    assert losses(tmp_path / "halves") == losses(tmp_path / "whole")


def test_accumulated_batches_move_the_teacher_once_per_optimizer_step(tmp_path: Path) -> None:
    result = run(tmp_path / "run", {"momentum": 0.5}, accumulate=2, stop_after_steps=1)
    before = untrained(
        PretrainSettings(data="", out="", encoder="vit_tiny_64", encoder_args=ENCODER, position="dino")
    ).state_dict()
    student, teacher = result.method.student.state_dict(), result.method.backbone.state_dict()
    # half a cosine from 0.5 to 1 begins at 0.5: the teacher lies midway between the first and the moved student
    for name, value in before.items():
        torch.testing.assert_close(teacher[name], (value + student[name]) / 2)
    moved = [name for name in before if not torch.equal(student[name], before[name])]
    assert not moved  # the first step of a warm-up from 0 has learning rate 0


def test_the_teacher_follows_the_student_that_moved(tmp_path: Path) -> None:
    result = run(tmp_path / "run", {"momentum": 0.0, "warmup_epochs": 0}, stop_after_steps=1)
    start = dict(
        untrained(
            PretrainSettings(data="", out="", encoder="vit_tiny_64", encoder_args=ENCODER, position="dino")
        ).named_parameters()
    )
    student = dict(result.method.student.named_parameters())
    assert any(not torch.equal(student[name], start[name]) for name in start)
    for name, parameter in result.method.backbone.named_parameters():
        torch.testing.assert_close(parameter, student[name].detach())


def test_labels_do_not_change_training(tmp_path: Path) -> None:
    class Unlabelled(Scenes):
        def labels(self) -> None:  # type: ignore[override]
            return None

    settings = {"epochs": 1, "batch_size": 8, "workers": 0, "threads": 1}
    results = []
    for name, images in (("with", Scenes(16, size=40)), ("without", Unlabelled(16, size=40))):
        chosen = PretrainSettings(
            data="scenes", out=str(tmp_path / name), encoder="vit_tiny_64", encoder_args=ENCODER, **settings
        )
        results.append(pretrain(chosen, MUGS, None, images))
    assert "probe/knn12_top1" in results[0].record or any(k.startswith("probe/") for k in results[0].record)
    assert not any(key.startswith("probe/") for key in results[1].record)
    assert_same(weights(results[0]), weights(results[1]))


def test_vicregl_trains_a_resnet_and_weights_decay_only_matrices(tmp_path: Path) -> None:
    settings = PretrainSettings(
        data="scenes",
        out=str(tmp_path / "run"),
        method="vicregl",
        encoder="resnet18_64",
        epochs=1,
        batch_size=4,
        workers=0,
        threads=1,
        log_every=1,
    )
    options = {"large_size": 32, "expander_width": 32, "local_width": 16, "optimizer": "lars"}
    result = pretrain(settings, options, None, Scenes(8, size=40))
    assert {"global/variance", "local/variance"} <= result.record.keys()
    assert dataclasses.asdict(settings)["epochs"] == 1
