"""Mixing objectives: what is added, what is left out, and the teacher that is made for it."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from polygrain.cli import main
from polygrain.methods.adding import ADDABLE, LocalSettings, mix
from polygrain.methods.adding_mugs import GroupSettings, InstanceSettings, LocalGroupSettings
from polygrain.methods.adding_patches import MaskedPatchSettings
from polygrain.methods.base import Method
from polygrain.methods.mugs import Mugs
from polygrain.methods.vicreg import VICReg
from polygrain.parts.encoder import Encoder, EncoderSettings
from polygrain.parts.teacher import StudentTeacher
from polygrain.schedules import Time
from tests.methods.views import random_views

NOW = Time(step=30, steps_per_epoch=10, epochs=10)
HEADS = {"hidden": 16, "predictor_hidden": 16, "out": 8, "queue_size": 32}
SMALL_GROUP = {"hidden": 16, "prototype_dim": 8, "prototypes": 16}
SMALL_MUGS = {"large_size": 32, "small_crops": 0, **HEADS, **SMALL_GROUP, "memory_size": 32, "neighbours": 2}
ADDITIONS = {
    "local": LocalSettings(width=16),
    "instance": InstanceSettings(**HEADS),
    "local_group": LocalGroupSettings(**HEADS, memory_size=32, neighbours=2),
    "group": GroupSettings(**SMALL_GROUP),
    "patches": MaskedPatchSettings(**SMALL_GROUP),
}


def encoder() -> Encoder:
    torch.manual_seed(0)
    arguments = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "drop_path_rate": 0.2}
    return Encoder(EncoderSettings(name="vit_small_patch16_224", arguments=arguments))


def vicreg() -> Method:
    return VICReg(large_size=32, expander_width=32).build(encoder()).train()


def step(method: Method) -> dict[str, Tensor]:
    torch.manual_seed(1)  # drop path
    terms = method(random_views(method.crops, 4), NOW)
    terms["loss"].backward()
    return terms


@pytest.mark.parametrize("name", [name for name in ADDITIONS if name != "patches"])  # hides them from all terms
def test_a_term_that_weighs_next_to_nothing_changes_no_bit_of_loss_or_gradient(name: str) -> None:
    alone, mixed = vicreg(), vicreg()
    mix(mixed, [dataclasses.replace(ADDITIONS[name], weight=1e-300)])
    one, other = step(alone), step(mixed)
    assert any(term.startswith(f"{name}/") for term in other)
    assert torch.equal(one["loss"], other["loss"])
    for part in (lambda method: method.student, lambda method: method.objectives["global"]):
        gradients, mixed_gradients = ([p.grad for p in part(method).parameters()] for method in (alone, mixed))
        assert len(gradients) == len(mixed_gradients)
        assert all(torch.equal(a, b) for a, b in zip(gradients, mixed_gradients, strict=True))


@pytest.mark.parametrize("name", ADDITIONS)
def test_the_loss_is_the_methods_own_plus_the_weighted_terms_that_were_added(name: str) -> None:
    method = vicreg()
    mix(method, [dataclasses.replace(ADDITIONS[name], weight=0.5)])
    terms = step(method)
    own = sum(value for term, value in terms.items() if term.startswith("global/"))
    added = sum(value for term, value in terms.items() if term.startswith(f"{name}/"))
    torch.testing.assert_close(terms["loss"], own + 0.5 * added)


def test_a_weight_of_0_adds_nothing() -> None:
    method = vicreg()
    mix(method, [dataclasses.replace(ADDITIONS["group"], weight=0.0)])
    assert method.weights == {"global": 1.0} and not isinstance(method.encoder, StudentTeacher)


def test_a_made_teacher_sees_the_large_crops_and_follows_by_the_stated_moving_average() -> None:
    method = vicreg()
    mix(method, [dataclasses.replace(ADDITIONS["group"], momentum=0.9)])
    assert method.teacher_sees == method.student_sees and isinstance(method.encoder, StudentTeacher)
    step(method)
    assert all(p.grad is None and not p.requires_grad for p in method.encoder.teacher.parameters())
    before = {key: value.clone() for key, value in method.encoder.teacher.named_parameters()}
    heads = method.objectives["group"].projector  # a student and a teacher too
    head_before = heads.teacher[0].weight.clone()
    with torch.no_grad():
        for p in method.parameters():
            if p.grad is not None:
                p.sub_(0.1 * p.grad)
    method.update_teachers(NOW)
    momentum = 1 - 0.1 * (1 + math.cos(math.pi * 30 / 100)) / 2  # half a cosine from 0.9 to 1
    student = dict(method.student.named_parameters())
    assert any(not torch.equal(student[key], before[key]) for key in before)
    for key, value in method.encoder.teacher.named_parameters():
        torch.testing.assert_close(value, momentum * before[key] + (1 - momentum) * student[key])
    torch.testing.assert_close(
        heads.teacher[0].weight, momentum * head_before + (1 - momentum) * heads.student[0].weight
    )


def test_a_made_teacher_is_not_what_is_exported_but_a_methods_own_is() -> None:
    method = vicreg()
    mix(method, [ADDITIONS["group"]])
    assert method.backbone is method.student
    method = Mugs(**SMALL_MUGS).build(encoder())
    assert isinstance(method.encoder, StudentTeacher) and method.backbone is method.encoder.teacher


@pytest.mark.parametrize("term", ["instance", "local_group", "group"])
def test_mugs_trains_without_each_of_its_terms_and_stays_their_mean(term: str) -> None:
    method = Mugs(**SMALL_MUGS).build(encoder()).train()
    mix(method, [], [term])
    wanted = Mugs(**SMALL_MUGS, **{f"{term}_weight": 0.0}).build(encoder())
    assert method.weights == pytest.approx(wanted.weights) and sum(method.weights.values()) == pytest.approx(1)
    terms = step(method)
    assert {name.split("/")[0] for name in terms} == {*wanted.weights, "loss"}
    assert method.student.model.patch_embed.proj.weight.grad.any()


def test_a_term_can_be_replaced_by_another_of_its_name() -> None:
    method = Mugs(**SMALL_MUGS).build(encoder()).train()
    mix(method, [dataclasses.replace(ADDITIONS["group"], weight=0.1)], ["group"])
    assert method.weights == {"instance": 0.5, "local_group": 0.5, "group": 0.1}
    step(method)


def refusals() -> list[tuple[Any, list[Any], list[str], str]]:
    one_view = VICReg(large_size=32, expander_width=32).build(encoder())
    one_view.student_sees = tuple(dataclasses.replace(crops, count=1) for crops in one_view.student_sees)
    mugs = Mugs(**SMALL_MUGS).build(encoder())
    return [
        (one_view, [ADDITIONS["local"]], [], "cannot add 'local': local matching needs at least two views"),
        (one_view, [ADDITIONS["group"]], [], "cannot add 'group': .* student sees 1"),
        (mugs, [ADDITIONS["group"]], [], "already has an objective 'group'"),
        (vicreg(), [], ["global"], "'global': it is the only objective"),
        (mugs, [], ["groups"], "'groups': the objectives of this method are instance, local_group, group"),
    ]


@pytest.mark.parametrize("case", range(5))
def test_what_cannot_work_is_refused_with_the_reason(case: int) -> None:
    method, additions, without, told = refusals()[case]
    with pytest.raises(ValueError, match=told):
        mix(method, additions, without)


# --- the command line

TINY = ["--encoder", "vit_mini_64", "--encoder-args", "{depth: 1, embed_dim: 32, num_heads: 2}", "--workers", "0"]
TINY += ["--batch-size", "4", "--threads", "1", "--probe-every-epochs", "0"]


def test_what_was_mixed_stands_in_the_configuration_and_comes_back_with_it(tmp_path: Path) -> None:
    out, again = tmp_path / "run", tmp_path / "again"
    mixed = ["--add", "group", "--group.prototypes", "32", "--local.width", "16", "--without", "local_group,group"]
    begin = ["pretrain", "scenes:16", "--out", str(out), "--epochs", "2", *TINY, *mixed]
    assert main([*begin, "--stop-after-steps", "3"]) == 0
    config = yaml.safe_load((out / "config.yaml").read_text())
    assert config["without"] == ["local_group", "group"]
    assert config["group"]["prototypes"] == 32 and config["group"]["weight"] == 1.0
    assert config["local"]["weight"] == 0.25 and config["local"]["width"] == 16
    assert config["group"]["hidden"] == config["mugs"]["hidden"] == 512  # both chosen for a CPU
    assert main(["pretrain", "--out", str(out), "--resume"]) == 0
    assert main(["pretrain", "--config", str(out / "config.yaml"), "--out", str(again)]) == 0
    logs = [(folder / "log.jsonl").read_text() for folder in (out, again)]
    assert all('"group/cross_entropy"' in log and '"local_group/info_nce"' not in log for log in logs)
    assert (out / "backbone.safetensors").read_bytes() == (again / "backbone.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--add", "groop"], "cannot add 'groop'; did you mean 'group'"),
        (["--add", "local,everything"], "cannot add 'everything'; what can be added is local, instance"),
        (["--add", "local", "--local.weight", "-1"], "weight is -1.0; it must be 0 or more"),
        (["--group.prototipes", "3"], "did you mean --group.prototypes"),
        (["--without", "locl"], "cannot leave out 'locl': the objectives of this method are instance"),
        (["--add", "group"], "already has an objective 'group'"),
    ],
)
def test_slips_in_mixing_are_told_in_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, options: list[str], told: str
) -> None:
    assert main(["pretrain", "scenes:16", "--out", str(tmp_path / "run"), *TINY, *options]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert told in line


def test_every_objective_that_can_be_added_is_tried_here() -> None:
    assert ADDITIONS.keys() == ADDABLE.keys()
