"""Vectors of all images before an epoch, and when they are made."""

import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from polygrain.data.centred import centred
from polygrain.data.loading import ViewBatches
from polygrain.data.photometric import IMAGENET
from polygrain.data.scenes import Scenes
from polygrain.methods.base import Method
from polygrain.methods.byol import BYOL
from polygrain.objectives.base import Embed
from polygrain.parts.encoder import Encoder, EncoderSettings
from polygrain.parts.teacher import StudentTeacher
from polygrain.schedules import Time
from polygrain.train.embedding import Embedder
from polygrain.train.settings import PretrainSettings
from polygrain.train.setup import pretrain

IMAGES = Scenes(11, size=40)
TINY: dict[str, Any] = {"embed_dim": 32, "depth": 1, "num_heads": 2, "img_size": 32}


def embedder(batch_size: int = 4, workers: int = 0) -> Embedder:
    torch.manual_seed(0)
    encoder = Encoder(EncoderSettings(name="vit_tiny_64", arguments=TINY))
    method = BYOL(hidden=8, predictor_hidden=8, out=4, large_size=32).build(encoder).train()
    with torch.no_grad():
        assert isinstance(method.encoder, StudentTeacher)
        for parameter in method.encoder.teacher.parameters():
            parameter.add_(0.1)
    fabric: Any = SimpleNamespace(
        world_size=1, global_rank=0, device=torch.device("cpu"), autocast=contextlib.nullcontext
    )
    views = ViewBatches(IMAGES, method.crops, seed=7)
    return Embedder(method=method, views=views, fabric=fabric, batch_size=batch_size, workers=workers, timeout=60)


def same(vectors: Tensor) -> Tensor:
    return vectors


@pytest.mark.parametrize("teacher", [False, True])
def test_centred_crops_are_seen_in_evaluation_mode_in_the_order_of_the_data(teacher: bool) -> None:
    embed = embedder()
    (rows,) = embed(same, epoch=2, teacher=teacher)
    pair = embed.method.encoder
    assert isinstance(pair, StudentTeacher)
    network = pair.teacher if teacher else pair.student
    pixels = torch.stack([centred(IMAGES.decode(i), 32, IMAGENET) for i in range(11)])
    with torch.no_grad():
        torch.testing.assert_close(rows, network.eval().features(pixels).pooled)


def test_random_crops_are_those_that_the_epoch_trains_on() -> None:
    embed = embedder()
    rows = embed(same, epoch=2, crops="large")
    views = embed.views.__getitems__([(2, i) for i in range(11)]).views["large"]
    with torch.no_grad():
        wanted = torch.stack([embed.method.student.features(view.pixels).pooled for view in views])
    torch.testing.assert_close(rows, wanted)
    assert not torch.allclose(rows, embed(same, epoch=3, crops="large"))


@pytest.mark.parametrize("batch_size", [1, 5, 11])
def test_every_image_comes_once_whatever_the_batch(batch_size: int) -> None:
    wanted = embedder()(same, epoch=0)
    torch.testing.assert_close(embedder(batch_size)(same, epoch=0), wanted)


def test_workers_change_nothing_and_modes_stay() -> None:
    embed = embedder(workers=1)
    embed.method.student.model.norm.eval()
    torch.testing.assert_close(embed(same, epoch=0), embedder()(same, epoch=0))
    assert embed.method.student.training and not embed.method.student.model.norm.training


def test_epochs_are_begun_once_each_and_not_again_by_a_resumed_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[int] = []

    def note(self: Method, time: Time, embed: Embed) -> None:
        begun.append(time.step)

    monkeypatch.setattr(Method, "start_epoch", note)

    def run(**more: Any) -> None:
        settings = PretrainSettings(
            data="scenes", out=str(tmp_path / "run"), method="byol", encoder="vit_tiny_64", encoder_args=TINY,
            epochs=3, batch_size=5, workers=0, threads=1, probe_every_epochs=0, **more,
        )  # fmt: skip
        pretrain(settings, {"hidden": 8, "predictor_hidden": 8, "out": 4, "large_size": 32}, images=IMAGES)

    run(stop_after_steps=3)  # in the middle of the second epoch
    assert begun == [0, 2]
    run(resume=True)
    assert begun == [0, 2, 4]
