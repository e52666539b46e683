from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from polygrain.data.scenes import Scenes
from polygrain.methods.barlow_twins import BarlowTwins
from polygrain.methods.base import Method, Settings
from polygrain.methods.mocov2 import MoCoV2
from polygrain.methods.mocov3 import MoCoV3
from polygrain.methods.simclr import SimCLR
from polygrain.methods.simclr_l import SimCLRL
from polygrain.parts.batch_norm import synchronise_batch_norm
from polygrain.parts.encoder import Encoder, EncoderSettings
from polygrain.parts.teacher import StudentTeacher
from polygrain.schedules import RunLength, Time
from polygrain.train.settings import PretrainSettings
from polygrain.train.setup import pretrain
from tests.methods.views import part, random_views
from tests.ranks import run_ranks

NOW = Time(step=0, steps_per_epoch=10, epochs=10)
SMALL: dict[str, dict[str, Any]] = {
    "simclr": {"large_size": 64, "hidden": 16, "out": 8},
    "simclr_l": {"large_size": 64, "small_size": 32, "small_crops": 1, "hidden": 16, "out": 8, "local_width": 8},
    "mocov2": {"large_size": 64, "hidden": 16, "out": 8, "queue_size": 32},
    "mocov3": {"large_size": 64, "hidden": 16, "predictor_hidden": 16, "out": 8},
    "barlow_twins": {"large_size": 64, "expander_width": 16},
}
TINY = {
    "vit_mini_64": {"depth": 1, "embed_dim": 24, "num_heads": 2},
    # with branches that start at zero, patches of equal vectors would have other gradients: a tie for the matching
    "resnet18_64": {"channels": (8, 8, 8, 16), "zero_init_last": False},
    "convnext_femto_64": {"dims": (8, 8, 8, 16)},
}
CLASSES: dict[str, Any] = {
    "simclr": SimCLR,
    "simclr_l": SimCLRL,
    "mocov2": MoCoV2,
    "mocov3": MoCoV3,
    "barlow_twins": BarlowTwins,
}


def encoder(name: str = "vit_mini_64") -> Encoder:
    torch.manual_seed(0)
    return Encoder(EncoderSettings(name=name, arguments=TINY[name]))


def small(name: str, **settings: Any) -> Settings:
    built: Settings = CLASSES[name](**SMALL[name], **settings)
    return built


def build(settings: Settings, of: Encoder) -> Method:
    torch.manual_seed(1)
    return settings.build(of)


@pytest.mark.parametrize("of", TINY)
@pytest.mark.parametrize("name", SMALL)
def test_every_trainable_parameter_gets_a_gradient_and_no_teacher_does(name: str, of: str) -> None:
    method = build(small(name), encoder(of))
    method(random_views(method.crops, 4), NOW)["loss"].backward()
    for key, parameter in method.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, key
        assert not (".teacher." in key and parameter.requires_grad), key


def shapes(method: Method, part: str) -> dict[str, tuple[int, ...]]:
    return {name: tuple(p.shape) for name, p in method.objectives.named_parameters() if part in name}


def test_heads_of_mocov3_are_those_of_the_paper() -> None:
    with torch.device("meta"):
        vit, resnet = (
            MoCoV3().build(Encoder(EncoderSettings(name=name))) for name in ("vit_small_patch16_224", "resnet50")
        )
    student = {name: s for name, s in shapes(vit, "projector.student").items() if len(s) == 2}
    assert list(student.values()) == [(4096, 384), (4096, 4096), (256, 4096)]
    count = {part: sum(torch.Size(s).numel() for s in shapes(vit, part).values()) for part in ("student", "predictor")}
    assert count == {"student": pytest.approx(19.42e6, abs=5e3), "predictor": pytest.approx(2.11e6, abs=5e3)}
    student = {name: s for name, s in shapes(resnet, "projector.student").items() if len(s) == 2}
    assert list(student.values()) == [(4096, 2048), (256, 4096)]
    predictors = [method.objectives["instance"].predictor for method in (vit, resnet)]
    assert [type(predictor[-1]) for predictor in predictors] == [nn.BatchNorm1d, nn.Linear]
    assert [method.objectives["instance"].temperature for method in (vit, resnet)] == [0.2, 1.0]
    assert [method.crops[0].scale for method in (vit, resnet)] == [(0.08, 1.0), (0.2, 1.0)]


def test_mocov3_starts_a_vit_as_its_authors_do_and_leaves_positions_and_patches_alone() -> None:
    method = build(MoCoV3(**SMALL["mocov3"]), encoder())
    model: Any = method.student.model
    frozen = {name for name, p in method.student.named_parameters() if not p.requires_grad}
    assert frozen == {"model.pos_embed", "model.patch_embed.proj.weight", "model.patch_embed.proj.bias"}
    dim, rows = 24, 8
    frequency = [10000 ** (-i / 6) for i in range(6)]
    codes = model.pos_embed[0, 1:].view(rows, rows, dim)
    for row, column in ((0, 3), (5, 2)):
        angles = [[where * f for f in frequency] for where in (row, column)]
        expected = [*torch.tensor(angles[0]).sin(), *torch.tensor(angles[0]).cos()]
        expected += [*torch.tensor(angles[1]).sin(), *torch.tensor(angles[1]).cos()]
        torch.testing.assert_close(codes[row, column], torch.stack(expected), atol=1e-5, rtol=0)
    assert not model.pos_embed[0, 0].any()
    assert model.blocks[0].attn.qkv.weight.abs().max() <= (6 / 48) ** 0.5
    assert model.blocks[0].attn.qkv.weight.abs().max() > 0.98 * (6 / 48) ** 0.5  # not that of a (72, 24) matrix
    assert model.patch_embed.proj.weight.abs().max() <= (6 / (3 * 64 + 24)) ** 0.5
    trained = build(MoCoV3(freeze_patches=False, **SMALL["mocov3"]), encoder()).student.model
    assert trained.patch_embed.proj.weight.requires_grad and not trained.pos_embed.requires_grad


def test_mocos_teacher_moves_before_it_encodes_and_only_then() -> None:
    for name in ("mocov2", "mocov3"):
        method = build(small(name, momentum=0.5), encoder())
        with torch.no_grad():
            for parameter in method.student.parameters():
                parameter.add_(1.0)
        assert isinstance(method.encoder, StudentTeacher)
        teacher = method.encoder.teacher
        before = [p.clone() for p in teacher.parameters()]
        method(random_views(method.crops, 4), NOW)
        method.update_teachers(NOW)
        moved = [p - b for p, b in zip(teacher.parameters(), before, strict=True)]
        assert all(torch.allclose(m, torch.full_like(m, 0.5), atol=1e-5) for m in moved), name


def test_mocov2_asks_for_one_query_and_one_key_or_two_of_both() -> None:
    one, two = (build(small("mocov2", symmetric=both), encoder()) for both in (False, True))
    assert [(c.name, c.count) for c in one.student_sees + one.teacher_sees] == [("query", 1), ("key", 1)]
    assert two.student_sees == two.teacher_sees and two.student_sees[0].count == 2


def test_simclr_l_at_alpha_1_is_simclr_with_the_crops_of_vicregl() -> None:
    sizes = {"large_size": 64, "hidden": 16, "out": 8}
    simclr = build(SimCLR(layers=2, **sizes), encoder("resnet18_64"))
    simclr_l = build(SimCLRL(alpha=1, **sizes), encoder("resnet18_64"))
    views = random_views(simclr.crops, 6)
    assert float(simclr(views, NOW)["loss"]) == float(simclr_l(views, NOW)["loss"])
    assert list(simclr_l.objectives) == ["instance"]


def lr(settings: Any, step: int, *, batch: int, epochs: int) -> float:
    steps = 1281167 // batch
    schedule = settings.optimization(RunLength(1281167, batch, epochs, steps)).lr
    return float(schedule(Time(step, steps, epochs)))


def test_learning_rates_are_the_published_ones() -> None:
    steps = 1281167 // 4096
    assert lr(MoCoV3(), 40 * steps, batch=4096, epochs=300) == pytest.approx(2.4e-3)
    assert lr(MoCoV3(), 20 * steps, batch=4096, epochs=300) == pytest.approx(1.2e-3)
    assert lr(MoCoV3(), 170 * steps, batch=4096, epochs=300) == pytest.approx(1.2e-3)  # half of the cosine
    assert lr(MoCoV3(optimizer="lars"), 10 * steps, batch=4096, epochs=300) == pytest.approx(4.8)
    assert lr(SimCLR(), 10 * 1281167 // 4096, batch=4096, epochs=100) == pytest.approx(4.8)
    assert lr(SimCLR(lr_scaling="sqrt"), 10 * 1281167 // 4096, batch=4096, epochs=100) == pytest.approx(4.8)
    steps = 1281167 // 256
    rates = {lr(MoCoV2(), 100 * steps + step, batch=256, epochs=200) for step in (0, 1, steps - 1)}
    assert list(rates) == [pytest.approx(0.015)]
    barlow = BarlowTwins().optimization(RunLength(1281167, 2048, 1000, 625))
    assert barlow.lr(Time(6250, 625, 1000)) == pytest.approx(1.6)
    assert barlow.one_dimension_lr * 1.6 == pytest.approx(0.0048 * 8)


def test_the_mocos_decay_all_parameters_and_simclr_can_double_its_loss() -> None:
    length = RunLength(100, 10, 10, 10)
    assert MoCoV2().optimization(length).decay_all and MoCoV3().optimization(length).decay_all
    assert not MoCoV3(optimizer="lars").optimization(length).decay_all
    paper, official = (build(small("simclr", compat=c), encoder()) for c in ("paper", "official"))
    views = random_views(paper.crops, 4)
    torch.testing.assert_close(2 * paper(views, NOW)["loss"], official(views, NOW)["loss"])


@pytest.mark.parametrize("name", SMALL)
def test_two_steps_of_training_end_well(name: str, tmp_path: Path) -> None:
    resnet = name in ("simclr", "mocov2")
    settings = PretrainSettings(
        data="scenes",
        out=str(tmp_path / "run"),
        method=name,
        encoder="resnet18_64" if resnet else "vit_tiny_64",
        encoder_args=TINY["resnet18_64"] if resnet else TINY["vit_mini_64"],
        epochs=1,
        batch_size=12,
        workers=0,
        threads=1,
        log_every=1,
    )
    values = {**SMALL[name], "large_size": 32} | ({"small_size": 16} if name == "simclr_l" else {})
    result = pretrain(settings, values, images=Scenes(24, size=40))
    assert result.record["loss"] > 0


# --- several processes

RANKED: list[tuple[str, dict[str, Any], str]] = [
    ("simclr", {}, "resnet18_64"),
    ("simclr_l", {"alpha": 0.5}, "resnet18_64"),
    ("simclr_l", {"negatives": "flat"}, "vit_mini_64"),
    ("mocov2", {}, "resnet18_64"),
    ("mocov3", {}, "resnet18_64"),
    ("mocov3", {}, "vit_mini_64"),
    ("barlow_twins", {}, "resnet18_64"),
]


class Outcome(tuple[float, list[Tensor], dict[str, Tensor]]):
    """Loss of the whole batch, gradients, buffers."""


def outcome(name: str, settings: dict[str, Any], of: str) -> tuple[float, list[Tensor], dict[str, Tensor]]:
    """Of one rank's images, averaged over ranks as data-parallel training does; or of all images."""
    method = build(small(name, **settings), encoder(of)).double()
    views = random_views(method.crops, 8, dtype=torch.float64)
    if dist.is_initialized():
        synchronise_batch_norm(method)
        views = part(views, slice(dist.get_rank() * 4, dist.get_rank() * 4 + 4))
    loss = method(views, NOW)["loss"]
    loss.backward()
    values = [loss.detach(), *[p.grad for p in method.parameters() if p.grad is not None]]
    if dist.is_initialized():
        for value in values:
            dist.all_reduce(value)
            value /= dist.get_world_size()
    return float(values[0]), values[1:], {key: b.clone() for key, b in method.named_buffers()}


def outcomes() -> list[tuple[float, list[Tensor], dict[str, Tensor]]]:
    return [outcome(*case) for case in RANKED]


def in_ranks() -> Any:
    return outcomes()


def test_two_processes_have_the_loss_gradient_and_buffers_of_one() -> None:
    alone = outcomes()
    for of_rank in run_ranks(in_ranks):
        for case, (loss, gradients, buffers), (rank_loss, rank_gradients, rank_buffers) in zip(
            RANKED, alone, of_rank, strict=True
        ):
            # the queue's InfoNCE is computed in single precision
            exact = 1e-5 if case[0] == "mocov2" else 1e-9
            assert rank_loss == pytest.approx(loss, rel=exact), case
            for one, other in zip(gradients, rank_gradients, strict=True):
                assert (one - other).norm() < 1e-5 * one.norm() + 1e-9, case
            for key, buffer in buffers.items():
                torch.testing.assert_close(rank_buffers[key], buffer, atol=1e-6, rtol=1e-5, msg=f"{case} {key}")
