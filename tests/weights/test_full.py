"""Full official checkpoints fill a whole method, and where a method may start from."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from polygrain.data.photometric import IMAGENET
from polygrain.methods.base import Method
from polygrain.methods.mugs import Mugs
from polygrain.methods.vicregl import VICRegL
from polygrain.parts.encoder import Encoder, EncoderSettings
from polygrain.parts.queue import Queue
from polygrain.weights.account import IncompleteImport
from polygrain.weights.backbone import save_backbone
from polygrain.weights.importing import import_full
from polygrain.weights.starting import start_from
from tests.weights import official

TOY = Mugs(
    hidden=64,
    predictor_hidden=80,
    out=32,
    prototype_dim=24,
    prototypes=96,
    queue_size=128,
    memory_size=40,
    neighbours=4,
    small_crops=3,
)
VICREGL = VICRegL(expander_width=16, local_width=8)


def encoder(**arguments) -> Encoder:
    size = {"patch_size": 32, "embed_dim": 32, "depth": 2, "num_heads": 2, **arguments}
    return Encoder(EncoderSettings(name="vit_small_patch16_224", position="dino", arguments=size))


def golden_file(golden) -> str:
    return str(golden / "mugs_official_full.pth")


@pytest.fixture(scope="module")
def filled(golden) -> Method:
    torch.manual_seed(1)
    method = TOY.build(encoder())
    import_full(golden_file(golden), method)
    return method


def test_a_full_mugs_checkpoint_fills_every_tensor_of_the_method(golden):
    torch.manual_seed(1)
    method = TOY.build(encoder())
    before = {key: value.clone() for key, value in method.state_dict().items()}
    report = import_full(golden_file(golden), method)
    assert report.complete
    assert [row.source for row in report.rows if row.fate == "left"] == [
        "student_mem/block.queue_v",
        "teacher_mem/block.queue_v",
    ]
    counts = [key for key in before if key.endswith(".filled")]
    filled = {row.target for row in report.rows if row.fate == "converted"}
    assert filled | set(counts) == set(method.state_dict())
    constant_at_start = ("weight_g", "bias", "norm", "pointer", "centre")
    random = [key for key in before if key not in counts and not any(word in key for word in constant_at_start)]
    assert len(random) > 40
    assert not any(torch.equal(before[key], method.state_dict()[key]) for key in random)


def test_heads_queues_and_memories_hold_what_the_checkpoint_holds(golden, filled):
    content = torch.load(golden_file(golden), weights_only=True)
    state = filled.state_dict()
    pairs = {
        "objectives.instance.contrast.queue.rows": content["instance-sup."]["queue"].T,
        "objectives.local_group.contrast.queue.rows": content["local-group-sup."]["queue"].T,
        "objectives.local_group.student_memory.rows": content["student_mem"]["block.queue_q"],
        "objectives.local_group.teacher_memory.values": content["teacher_mem"]["block.queue_k"],
        "objectives.local_group.aggregator.teacher.blocks.0.mlp.fc1.weight": content["teacher"][
            "backbone.relation_blocks.0.mlp.fc1.weight"
        ],
        "objectives.local_group.contrast.predictor.2.weight": content["student"][
            "module.local_group_head.predictor.2.weight"
        ],
        "objectives.group.prototypes.student.weight_v": content["student"]["module.group_head.last_layer.weight_v"],
        "objectives.group.centre": content["group-sup."]["center"][0],
        "encoder.student.model.pos_embed": content["student"]["module.backbone.pos_embed"],
    }
    for key, expected in pairs.items():
        assert torch.equal(state[key], expected), key
    queues = {name: module for name, module in filled.named_modules() if isinstance(module, Queue)}
    assert len(queues) == 4
    assert queues["objectives.local_group.student_memory"].pointer == content["student_mem"]["block.queue_ptr"]
    written = (content["teacher_mem"]["block.queue_q"] == content["teacher_mem"]["block.queue_k"]).all(1).sum()
    assert queues["objectives.local_group.teacher_memory"].filled == written


def test_the_teacher_of_the_checkpoint_gives_the_authors_features(golden, filled):
    inputs = np.load(golden / "mugs_inputs.npz")
    mean, std = (torch.tensor(values)[:, None, None] for values in IMAGENET)
    with torch.no_grad():
        pooled = filled.backbone.features((torch.from_numpy(inputs["probe"]) / 255 - mean) / std).pooled
    torch.testing.assert_close(pooled, torch.from_numpy(inputs["probe_cls_features"]), atol=2e-5, rtol=1e-4)


def test_both_ways_of_saving_normed_prototypes_are_read(golden, filled, tmp_path):
    content = torch.load(golden_file(golden), weights_only=True)
    for network, prefix in (("student", "module."), ("teacher", "")):
        layer = f"{prefix}group_head.last_layer."
        for ours, theirs in (("weight_g", "original0"), ("weight_v", "original1")):
            content[network][f"{layer}parametrizations.weight.{theirs}"] = content[network].pop(layer + ours)
    torch.save(content, tmp_path / "new.pth")
    method = TOY.build(encoder())
    import_full(tmp_path / "new.pth", method)
    for one, other in zip(method.state_dict().values(), filled.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_a_checkpoint_of_other_sizes_loads_nothing(golden):
    wide = Mugs(**{**TOY.__dict__, "prototypes": 97}).build(encoder())
    with pytest.raises(IncompleteImport, match=r"0 missing, 0 unknown, 5 misfit"):
        import_full(golden_file(golden), wide)


def test_a_backbone_alone_is_not_a_full_checkpoint(tmp_path):
    torch.save(official.random_vit(dim=32, depth=2, patch=32, grid=7), tmp_path / "backbone.pth")
    with pytest.raises(ValueError, match=r"backbone\.pth is not a full checkpoint"):
        import_full(tmp_path / "backbone.pth", TOY.build(encoder()))


def test_a_method_without_the_group_term_leaves_the_groups_of_the_checkpoint(golden):
    method = Mugs(**{**TOY.__dict__, "group_weight": 0.0}).build(encoder())
    report = import_full(golden_file(golden), method)
    assert report.complete
    assert {row.note for row in report.rows if row.fate == "left"} == {
        "never read by the authors' code",
        "this method has no objective 'group'",
    }


def vicregl_file(tmp_path, resnet: Encoder) -> tuple[str, dict[str, Tensor]]:
    """A full checkpoint with random heads in the official numbering, around the ResNet's own tensors."""
    model = {f"module.backbone.{key}": value for key, value in resnet.model.state_dict().items()}
    for head, width in (("projector", 16), ("maps_projector", 8)):
        torch.manual_seed(width)
        layers = [nn.Linear(512, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, width)]
        layers += [nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, width, bias=False)]
        model.update({f"module.{head}.{key}": value for key, value in nn.Sequential(*layers).state_dict().items()})
    model["module.classifier.weight"] = torch.zeros(10, 512)
    torch.save({"epoch": 1, "model": model, "optimizer": {"state": {}}}, tmp_path / "full.pth")
    return str(tmp_path / "full.pth"), model


def test_a_full_vicregl_checkpoint_fills_backbone_and_both_heads(tmp_path):
    torch.manual_seed(0)
    file, model = vicregl_file(tmp_path, Encoder(EncoderSettings(name="resnet18")))
    method = VICREGL.build(Encoder(EncoderSettings(name="resnet18")))
    report = start_from(file, method)
    assert report.complete and report.count("left") == 1
    state = method.state_dict()
    assert len(state) == len(model) - 1
    for ours, theirs in (
        ("encoder.model.layer3.1.bn2.running_var", "backbone.layer3.1.bn2.running_var"),
        ("objectives.global.expander.6.weight", "projector.6.weight"),
        ("objectives.local.projector.4.running_mean", "maps_projector.4.running_mean"),
        ("objectives.local.projector.3.bias", "maps_projector.3.bias"),
    ):
        assert torch.equal(state[ours], model[f"module.{theirs}"]), ours


def test_a_method_starts_from_the_backbone_of_another_methods_checkpoint(golden):
    torch.manual_seed(0)
    method = VICREGL.build(encoder())
    report = start_from(golden_file(golden), method)
    assert report.complete and report.count("converted") == 0
    teacher = torch.load(golden_file(golden), weights_only=True)["teacher"]
    assert torch.equal(method.state_dict()["encoder.model.norm.weight"], teacher["backbone.norm.weight"])


def test_student_and_teacher_both_start_from_a_backbone(tmp_path):
    torch.manual_seed(0)
    source = encoder()
    save_backbone(tmp_path / "run" / "backbone.safetensors", source, normalisation=IMAGENET)
    torch.save(official.random_vit(dim=32, depth=2, patch=32, grid=7), tmp_path / "official.pth")
    for spec in (tmp_path / "run", tmp_path / "run" / "backbone.safetensors", tmp_path / "official.pth"):
        torch.manual_seed(1)
        method = TOY.build(encoder())
        assert start_from(spec, method).complete
        student, teacher = method.student.model.state_dict(), method.backbone.model.state_dict()
        expected = torch.load(spec) if spec.suffix == ".pth" else source.model.state_dict()
        for key in student:
            assert torch.equal(student[key], expected[key]) and torch.equal(teacher[key], expected[key])


def test_a_backbone_of_another_shape_is_refused(tmp_path):
    save_backbone(tmp_path / "backbone.safetensors", encoder(embed_dim=64), normalisation=IMAGENET)
    with pytest.raises(ValueError, match=r"cls_token is \(1, 1, 64\), not \(1, 1, 32\), .* and \d+ more"):
        start_from(tmp_path, TOY.build(encoder()))


def test_mugs_vit_small_has_as_many_tensors_and_numbers_as_the_official_student_and_teacher():
    with torch.device("meta"):
        method = Mugs().build(Encoder(EncoderSettings(name="vit_small_patch16_224", position="dino")))
    for side, tensors, numbers in (("student", 180, 60_996_608), ("teacher", 176, 56_802_304)):
        own = [value for key, value in method.named_parameters() if (".teacher." in key) == (side == "teacher")]
        assert (len(own), sum(value.numel() for value in own)) == (tensors, numbers)
