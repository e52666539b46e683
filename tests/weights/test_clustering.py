"""Random files in the layouts of SwAV, DeepCluster-v2, SimSiam and PCL."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from polygrain.methods.deepclusterv2 import DeepClusterV2
from polygrain.methods.mocov2 import MoCoV2
from polygrain.methods.pcl import PCL
from polygrain.methods.simsiam import SimSiam
from polygrain.methods.swav import SwAV
from polygrain.parts.encoder import Encoder, EncoderSettings
from polygrain.weights.account import IncompleteImport
from polygrain.weights.importing import import_full, import_weights
from polygrain.weights.starting import start_from
from tests.weights import official

State = dict[str, Tensor]


def resnet50() -> Encoder:
    return Encoder(EncoderSettings(name="resnet50")).eval()


def saved(folder: Path, content: Any) -> str:
    torch.save(content, folder / "file.pth.tar")
    return str(folder / "file.pth.tar")


def named(prefix: str, state: State) -> State:
    return {prefix + key: value for key, value in state.items()}


def linear(name: str, out: int, into: int, bias: bool = True) -> State:
    weight = {f"{name}.weight": torch.randn(out, into)}
    return {**weight, f"{name}.bias": torch.randn(out)} if bias else weight


def norm(name: str, width: int, affine: bool = True) -> State:
    own = {"running_mean": torch.randn(width), "running_var": torch.rand(width) + 0.5}
    gain = {"weight": torch.randn(width), "bias": torch.randn(width)} if affine else {}
    return named(f"{name}.", {**gain, **own, "num_batches_tracked": torch.tensor(3)})


def swav_head(hidden: int = 8, out: int = 6) -> State:
    return named("projection_head.", {**linear("0", hidden, 2048), **norm("1", hidden), **linear("3", out, hidden)})


def swav() -> State:
    return named("module.", {**official.random_resnet(), **swav_head(), "prototypes.weight": torch.randn(5, 6)})


def deepcluster() -> State:
    prototypes = {f"prototypes.prototypes{h}.weight": torch.randn(5, 6) for h in range(3)}
    return named("module.", {**official.random_resnet(), **swav_head(), **prototypes})


def simsiam() -> dict[str, Any]:
    projector = named("fc.", {
        **linear("0", 8, 2048, bias=False), **norm("1", 8), **linear("3", 8, 8, bias=False), **norm("4", 8),
        **linear("6", 8, 8), **norm("7", 8, affine=False),
    })  # fmt: skip
    predictor = {**linear("0", 2, 8, bias=False), **norm("1", 2), **linear("3", 8, 2)}
    state = {**named("encoder.", {**official.random_resnet(), **projector}), **named("predictor.", predictor)}
    return {"epoch": 100, "arch": "resnet50", "state_dict": named("module.", state), "optimizer": {"state": {}}}


def pcl() -> dict[str, Any]:
    head = {**linear("fc.0", 2048, 2048), **linear("fc.2", 128, 2048)}
    student = {**official.random_resnet(), **head}
    teacher = {key: value + 1 for key, value in student.items()}
    queue = {"queue": torch.randn(128, 16), "queue_ptr": torch.zeros(1, dtype=torch.long)}
    state = {**named("encoder_q.", student), **named("encoder_k.", teacher), **queue}
    return {"epoch": 200, "arch": "resnet50", "state_dict": named("module.", state)}


@pytest.mark.parametrize(
    ("file", "left"), [(swav, 2 + 5 + 2 + 1), (deepcluster, 2 + 5 + 2 + 3), (simsiam, 17 + 8), (pcl, 4 + 318 + 4 + 2)]
)
def test_the_backbone_is_taken_and_everything_else_is_left_for_a_reason(tmp_path: Path, file: Any, left: int) -> None:
    encoder = resnet50()
    report = import_weights(saved(tmp_path, file()), encoder)
    assert report.complete and report.count("matched") == 318 and report.count("left") == left
    assert torch.equal(encoder.model.layer4[2].conv3.weight, official.random_resnet()["layer4.2.conv3.weight"])


def test_a_tensor_that_no_table_knows_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(IncompleteImport, match=r"0 missing, 1 unknown"):
        import_weights(saved(tmp_path, {**swav(), "module.surprise": torch.zeros(2)}), resnet50())


def test_a_file_of_swav_fills_the_head_and_the_prototypes_too(tmp_path: Path) -> None:
    file = swav()
    method = SwAV(hidden=8, out=6, prototypes=5, queue_size=0).build(resnet50())
    report = import_full(saved(tmp_path, file), method)
    assert report.complete and not report.count("left")
    state = method.state_dict()
    assert torch.equal(state["objectives.group.projector.3.weight"], file["module.projection_head.3.weight"])
    assert torch.equal(state["objectives.group.prototypes.weight"], file["module.prototypes.weight"])


def test_a_file_of_simsiam_fills_projector_and_predictor_too(tmp_path: Path) -> None:
    file = simsiam()
    method = SimSiam(hidden=8).build(resnet50())
    report = import_full(saved(tmp_path, file), method)
    assert report.complete
    state = method.state_dict()
    for name, theirs in (("projector.6.bias", "encoder.fc.6.bias"), ("predictor.3.weight", "predictor.3.weight")):
        assert torch.equal(state[f"objectives.instance.{name}"], file["state_dict"][f"module.{theirs}"])


def test_a_file_of_deepcluster_fills_the_head_and_all_prototypes_and_leaves_the_rest_to_the_first_epoch(
    tmp_path: Path,
) -> None:
    file = {"epoch": 400, "state_dict": deepcluster(), "optimizer": {"state": {}}}
    method = DeepClusterV2(hidden=8, out=6, prototypes=5).build(resnet50())
    method.prepare(12)
    report = import_full(saved(tmp_path, file), method)
    assert report.complete and not report.count("left")
    anew = {row.target for row in report.rows if row.fate == "anew"}
    assert anew == {f"objectives.group.{name}" for name in ("bank.rows", "clusters", "largest_cluster")}
    state, theirs = method.state_dict(), file["state_dict"]
    for h in range(3):
        centroids = state["objectives.group.centroids"][h]
        assert torch.equal(centroids, theirs[f"module.prototypes.prototypes{h}.weight"])
    for ours, name in (("0.weight", "0.weight"), ("1.running_var", "1.running_var"), ("3.bias", "3.bias")):
        assert torch.equal(state[f"objectives.group.projector.{ours}"], theirs[f"module.projection_head.{name}"])
    assert torch.equal(state["encoder.model.conv1.weight"], theirs["module.conv1.weight"])


def test_prototypes_that_a_file_of_deepcluster_lacks_are_missed_and_one_too_many_is_not_ignored(tmp_path: Path) -> None:
    method = DeepClusterV2(hidden=8, out=6, prototypes=5, clusterings=4).build(resnet50())
    with pytest.raises(IncompleteImport, match="1 missing"):
        import_full(saved(tmp_path, deepcluster()), method)
    method = DeepClusterV2(hidden=8, out=6, prototypes=5, clusterings=2).build(resnet50())
    with pytest.raises(IncompleteImport, match=r"0 missing, 1 unknown"):
        import_full(saved(tmp_path, deepcluster()), method)


def test_a_file_of_pcl_fills_both_networks_heads_and_the_queue_and_clusters_are_found_later(tmp_path: Path) -> None:
    file = pcl()
    file["state_dict"]["module.queue_ptr"].fill_(4)
    method = PCL(queue_size=16, clusters=(2, 3)).build(resnet50())
    method.prepare(12)
    report = import_full(saved(tmp_path, file), method)
    assert report.complete and not report.count("left")
    assert {row.target.split(".")[-1] for row in report.rows if row.fate == "anew"} == {
        "clusters", "centroids", "concentrations", "largest_cluster"
    }  # fmt: skip
    state, theirs = method.state_dict(), file["state_dict"]
    for ours, name in (
        ("encoder.student.model.conv1.weight", "encoder_q.conv1.weight"),
        ("encoder.teacher.model.layer4.2.bn3.bias", "encoder_k.layer4.2.bn3.bias"),
        ("objectives.group.projector.student.2.weight", "encoder_q.fc.2.weight"),
        ("objectives.group.projector.teacher.0.bias", "encoder_k.fc.0.bias"),
    ):
        assert torch.equal(state[ours], theirs[f"module.{name}"]), ours
    assert torch.equal(state["objectives.group.queue.rows"], theirs["module.queue"].T)
    assert int(state["objectives.group.queue.pointer"]) == 4 and int(state["objectives.group.queue.filled"]) == 16


def test_files_named_alike_continue_the_method_that_is_to_be_filled(tmp_path: Path) -> None:
    file = pcl()
    path = saved(tmp_path, file)
    for method in (PCL(queue_size=16, clusters=(2, 3)).build(resnet50()), MoCoV2(queue_size=16).build(resnet50())):
        start_from(path, method)
        (objective,) = method.objectives.values()
        assert torch.equal(objective.queue.rows, file["state_dict"]["module.queue"].T)
