"""Random files in the layouts of MoCo v2, MoCo-v3, InfoMin and Barlow Twins."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from polygrain.methods.barlow_twins import BarlowTwins
from polygrain.methods.infomin import InfoMin
from polygrain.methods.mocov2 import MoCoV2
from polygrain.methods.mocov3 import MoCoV3
from polygrain.methods.simclr import SimCLR
from polygrain.parts.encoder import Encoder, EncoderSettings
from polygrain.weights.account import IncompleteImport
from polygrain.weights.importing import import_full, import_weights
from polygrain.weights.official import released_encoder
from polygrain.weights.starting import start_from
from tests.weights import official
from tests.weights.test_clustering import State, linear, named, norm, resnet50, saved

TINY: dict[str, Any] = {"img_size": 64, "patch_size": 16, "embed_dim": 48, "depth": 2, "num_heads": 3}


def tiny() -> Encoder:
    return Encoder(EncoderSettings(name="vit_tiny_patch16_224", arguments=TINY))


def moved(state: State) -> State:
    return {key: value + 0.25 if value.is_floating_point() else value for key, value in state.items()}


@cache
def mocov2() -> dict[str, Any]:
    student = {**official.random_resnet(), **linear("fc.0", 8, 2048), **linear("fc.2", 6, 8)}
    queue = {"queue": torch.randn(6, 16), "queue_ptr": torch.tensor([12])}
    state = {**named("encoder_q.", student), **named("encoder_k.", moved(student)), **queue}
    return {"epoch": 200, "arch": "resnet50", "state_dict": named("module.", state), "optimizer": {"state": {}}}


@cache
def mocov3() -> dict[str, Any]:
    head = named("head.", {
        **linear("0", 8, 48, bias=False), **norm("1", 8), **linear("3", 8, 8, bias=False), **norm("4", 8),
        **linear("6", 6, 8, bias=False), **norm("7", 6, affine=False),
    })  # fmt: skip
    student = {**official.random_vit(dim=48, depth=2, grid=4), **head}
    student = {key: value for key, value in student.items() if not key.startswith("relation_blocks")}
    predictor = {
        **linear("0", 8, 6, bias=False), **norm("1", 8), **linear("3", 6, 8, bias=False), **norm("4", 6, affine=False)
    }  # fmt: skip
    state = {**named("base_encoder.", student), **named("momentum_encoder.", moved(student))}
    state |= named("predictor.", predictor)
    return {"epoch": 300, "arch": "vit_small", "state_dict": named("module.", state), "scaler": {"scale": 2.0}}


@cache
def barlow() -> dict[str, Any]:
    projector = {
        **linear("0", 8, 2048, bias=False), **norm("1", 8), **linear("3", 8, 8, bias=False), **norm("4", 8),
        **linear("6", 8, 8, bias=False),
    }  # fmt: skip
    state = {**named("backbone.", official.random_resnet()), **named("projector.", projector)}
    return {"epoch": 1000, "model": named("module.", {**state, **norm("bn", 8, affine=False)})}


@cache
def infomin() -> dict[str, Any]:
    heads = {**linear("head.0", 8, 2048), **linear("head.2", 6, 8)}
    heads |= {**linear("head_jig.fc1.0", 8, 2048), **linear("head_jig.fc1.2", 6, 8), **linear("head_jig.fc2", 6, 54)}
    student = {**named("encoder.", official.random_resnet()), **heads}
    memory = {"memory": torch.randn(16, 6)}
    return {"epoch": 800, "model": named("module.", student), "model_ema": moved(student), "contrast": memory}


def test_the_student_of_moco_is_taken_as_its_authors_evaluate_it(tmp_path: Path) -> None:
    encoder = resnet50()
    report = import_weights(saved(tmp_path, mocov2()), encoder)
    assert report.complete and report.count("matched") == 318
    assert torch.equal(encoder.model.layer4[2].conv3.weight, official.random_resnet()["layer4.2.conv3.weight"])
    import_weights(saved(tmp_path, mocov2()), encoder, which="teacher")
    assert torch.equal(encoder.model.layer4[2].conv3.weight, official.random_resnet()["layer4.2.conv3.weight"] + 0.25)


@pytest.mark.parametrize("file", [barlow, infomin])
def test_the_backbone_of_one_network_is_taken_and_all_else_is_left(tmp_path: Path, file: Any) -> None:
    encoder = resnet50()
    report = import_weights(saved(tmp_path, file()), encoder)
    assert report.complete and report.count("matched") == 318
    assert torch.equal(encoder.model.layer4[2].conv3.weight, official.random_resnet()["layer4.2.conv3.weight"])


def test_a_vit_of_mocov3_computes_the_same_here(tmp_path: Path) -> None:
    vit, noise = tiny().eval(), torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    report = import_weights(saved(tmp_path, mocov3()), vit)
    assert report.complete
    with torch.no_grad():
        expected = official.vit_tokens(official.random_vit(dim=48, depth=2, grid=4), noise, 3)
        torch.testing.assert_close(vit.features(noise).pooled, expected[:, 0], atol=1e-5, rtol=0)


def test_a_vit_small_of_mocov3_has_12_heads_and_one_of_mugs_6(tmp_path: Path) -> None:
    state = official.random_vit(dim=384, depth=1, grid=14)
    state = {key: value for key, value in state.items() if not key.startswith("relation_blocks")}
    base = {"state_dict": named("module.base_encoder.", state)}
    for content, heads, wrong in ((base, 12, 6), (state, 6, 12)):
        path = saved(tmp_path, content)
        arguments: dict[str, Any] = {"depth": 1, "num_heads": heads}
        right = Encoder(EncoderSettings(name="vit_small_patch16_224", arguments=arguments))
        assert import_weights(path, right).complete
        other = Encoder(EncoderSettings(name="vit_small_patch16_224", arguments={**arguments, "num_heads": wrong}))
        with pytest.raises(ValueError, match=f"{wrong} heads; the ViT of width 384 of .* has {heads}"):
            import_weights(path, other)
    prefix = "state_dict/module.base_encoder."
    named_as_read = named(prefix, state)
    assert released_encoder(named_as_read, "vit", prefix, "file").arguments == {"num_heads": 12}


def test_a_full_file_of_mocov2_fills_both_networks_heads_and_the_queue(tmp_path: Path) -> None:
    method = MoCoV2(hidden=8, out=6, queue_size=16).build(resnet50())
    report = import_full(saved(tmp_path, mocov2()), method)
    assert report.complete
    own, theirs = method.state_dict(), mocov2()["state_dict"]
    assert torch.equal(own["objectives.instance.queue.rows"], theirs["module.queue"].T)
    assert int(own["objectives.instance.queue.pointer"]) == 12 and int(own["objectives.instance.queue.filled"]) == 16
    assert torch.equal(own["objectives.instance.projector.teacher.2.bias"], theirs["module.encoder_k.fc.2.bias"])
    assert torch.equal(own["encoder.student.model.conv1.weight"], theirs["module.encoder_q.conv1.weight"])


def test_a_full_file_of_mocov3_fills_both_networks_and_the_predictor(tmp_path: Path) -> None:
    method = MoCoV3(hidden=8, predictor_hidden=8, out=6, large_size=64).build(tiny())
    report = import_full(saved(tmp_path, mocov3()), method)
    assert report.complete
    own, theirs = method.state_dict(), mocov3()["state_dict"]
    for ours, name in (
        ("encoder.teacher.model.pos_embed", "momentum_encoder.pos_embed"),
        ("objectives.instance.projector.student.7.running_mean", "base_encoder.head.7.running_mean"),
        ("objectives.instance.predictor.3.weight", "predictor.3.weight"),
    ):
        assert torch.equal(own[ours], theirs[f"module.{name}"]), ours


def test_a_full_file_of_barlow_twins_fills_the_projector_and_the_norm(tmp_path: Path) -> None:
    method = BarlowTwins(expander_width=8).build(resnet50())
    report = import_full(saved(tmp_path, barlow()), method)
    assert report.complete and not report.count("left")
    own, theirs = method.state_dict(), barlow()["model"]
    assert torch.equal(own["objectives.global.projector.6.weight"], theirs["module.projector.6.weight"])
    assert torch.equal(own["objectives.global.norm.running_var"], theirs["module.bn.running_var"])


def test_another_method_with_an_objective_of_the_same_name_takes_the_backbone_alone(tmp_path: Path) -> None:
    path = saved(tmp_path, mocov2())
    method = SimCLR(hidden=8, out=6).build(resnet50())
    before = method.objectives["instance"].projector[0].weight.clone()
    start_from(path, method)
    assert torch.equal(method.objectives["instance"].projector[0].weight, before)
    assert torch.equal(method.student.model.conv1.weight, official.random_resnet()["conv1.weight"])


def test_a_tensor_that_no_table_knows_is_an_error(tmp_path: Path) -> None:
    file = {**mocov3(), "state_dict": {**mocov3()["state_dict"], "module.base_encoder.surprise": torch.zeros(2)}}
    with pytest.raises(IncompleteImport, match=r"0 missing, 1 unknown"):
        import_weights(saved(tmp_path, file), tiny())


def test_the_student_of_infomin_is_taken_unless_the_teacher_is_asked_for(tmp_path: Path) -> None:
    encoder, path = resnet50(), saved(tmp_path, infomin())
    weight = official.random_resnet()["layer4.2.conv3.weight"]
    for which, expected in ((None, weight), ("student", weight), ("teacher", weight + 0.25)):
        assert import_weights(path, encoder, which=which).complete
        assert torch.equal(encoder.model.layer4[2].conv3.weight, expected)


def test_a_full_file_of_infomin_fills_both_networks_three_heads_and_the_queue(tmp_path: Path) -> None:
    method = InfoMin(hidden=8, out=6, queue_size=16).build(resnet50())
    report = import_full(saved(tmp_path, infomin()), method)
    assert report.complete and report.count("left") == 6  # the teacher's head of puzzles
    own, theirs = method.state_dict(), infomin()
    for ours, name in (
        ("encoder.student.model.conv1.weight", "encoder.conv1.weight"),
        ("objectives.instance.projector.student.2.bias", "head.2.bias"),
        ("objectives.jigsaw.fc1.0.weight", "head_jig.fc1.0.weight"),
        ("objectives.jigsaw.fc2.weight", "head_jig.fc2.weight"),
    ):
        assert torch.equal(own[ours], theirs["model"][f"module.{name}"]), ours
    assert torch.equal(own["objectives.instance.projector.teacher.0.weight"], theirs["model_ema"]["head.0.weight"])
    assert torch.equal(own["objectives.instance.queue.rows"], theirs["contrast"]["memory"])
    assert int(own["objectives.instance.queue.filled"]) == 16 and int(own["objectives.instance.queue.pointer"]) == 0
