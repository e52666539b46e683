"""Files in the layouts of DINO, iBOT and MAE, filled with random numbers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from polygrain.methods.dino import DINO
from polygrain.methods.ibot import IBOT
from polygrain.methods.mae import MAE
from polygrain.parts.encoder import Encoder, EncoderSettings
from polygrain.weights.account import IncompleteImport
from polygrain.weights.importing import import_full, import_weights
from tests.weights import official

HEAD: dict[str, Any] = {"hidden": 12, "prototype_dim": 8, "prototypes": 10, "large_size": 64, "small_size": 32}
State = dict[str, Tensor]


def vit() -> Encoder:
    arguments = {"img_size": 64, "patch_size": 16, "embed_dim": 32, "depth": 2, "num_heads": 2}
    return Encoder(EncoderSettings(name="vit_small_patch16_224", position="dino", arguments=arguments))


def backbone(seed: float = 0.0) -> State:
    return {key: value + seed for key, value in official.random_vit(dim=32, depth=2, grid=4, relation=False).items()}


def head(dim: int, norms: bool = False) -> State:
    widths, state = ((12, dim), (12, 12), (8, 12)), {}
    for i, shape in enumerate(widths):
        place = i * (3 if norms else 2)
        state[f"mlp.{place}.weight"], state[f"mlp.{place}.bias"] = torch.randn(shape), torch.randn(shape[0])
        if norms and i < 2:
            for part in ("weight", "bias", "running_mean", "running_var"):
                state[f"mlp.{place + 1}.{part}"] = torch.rand(12)
            state[f"mlp.{place + 1}.num_batches_tracked"] = torch.tensor(3)
    return {**state, "last_layer.weight_g": torch.ones(10, 1), "last_layer.weight_v": torch.randn(10, 8)}


def within(prefix: str, state: State) -> State:
    return {prefix + key: value for key, value in state.items()}


def saved(path: Path, content: dict[str, Any]) -> Path:
    torch.save(content, path)
    return path


def ibot_file(path: Path) -> tuple[Path, dict[str, Any]]:
    sides = []
    for prefix in ("module.", ""):
        own = head(32)
        own |= {key.replace("last_layer", "last_layer2"): own[key] for key in [*own] if "last_layer" in key}
        sides.append(within(prefix, {**within("backbone.", backbone()), **within("head.", own)}))
    sides[0]["module.backbone.masked_embed"] = torch.randn(1, 32)
    content = {
        "student": sides[0],
        "teacher": sides[1],
        "ibot_loss": {"center": torch.randn(1, 10), "center2": torch.randn(1, 1, 10)},
        "optimizer": {"state": {}, "param_groups": []},
        "epoch": 3,
    }
    return saved(path, content), content


def test_a_full_ibot_fills_every_tensor_of_the_method(tmp_path: Path) -> None:
    path, content = ibot_file(tmp_path / "checkpoint.pth")
    method = IBOT(**HEAD).build(vit())
    report = import_full(path, method)
    assert report.complete
    left = {row.source.split("/")[1].removeprefix("module.") for row in report.rows if row.fate == "left"}
    assert {"head.last_layer2.weight_g", "head.last_layer2.weight_v"} <= left
    state = method.state_dict()
    assert {row.target for row in report.rows if row.fate == "converted"} == set(state)
    student, teacher, losses = content["student"], content["teacher"], content["ibot_loss"]
    for name, value in {
        "encoder.student.mask_token": student["module.backbone.masked_embed"],
        "objectives.group.projector.teacher.2.weight": teacher["head.mlp.2.weight"],
        "objectives.group.prototypes.student.weight_v": student["module.head.last_layer.weight_v"],
        "objectives.group.centre": losses["center"][0],
        "objectives.patches.centre": losses["center2"][0, 0],
    }.items():
        assert torch.equal(state[name], value), name


def test_a_full_dino_of_a_resnet_fills_every_tensor_of_the_method(tmp_path: Path) -> None:
    arguments = {"layers": [1, 1, 1, 1], "channels": [8, 16, 32, 64]}
    encoder = Encoder(EncoderSettings(name="resnet18_64", arguments=arguments))
    sides = [
        {
            **within("module.backbone.", {key: value.clone() for key, value in encoder.model.state_dict().items()}),
            **within("module.head.", head(encoder.dim, norms=True)),
        }
        for _ in range(2)
    ]
    content = {"student": sides[0], "teacher": sides[1], "dino_loss": {"center": torch.randn(1, 10)}, "epoch": 1}
    method = DINO(**HEAD, batch_norm_in_heads=True).build(encoder)
    report = import_full(saved(tmp_path / "resnet.pth", content), method)
    assert report.complete and not any(row.fate == "left" for row in report.rows)
    state = method.state_dict()
    assert torch.equal(
        state["objectives.group.projector.student.4.running_var"], sides[0]["module.head.mlp.4.running_var"]
    )


def mae_file(path: Path) -> tuple[Path, State]:
    decoder = official.random_vit(dim=16, depth=1, grid=4, relation=False)
    renamed = {f"decoder_{key}": value for key, value in decoder.items() if key.startswith(("blocks", "norm"))}
    state = {
        **backbone(),
        **renamed,
        "mask_token": torch.randn(1, 1, 16),
        "decoder_embed.weight": torch.randn(16, 32),
        "decoder_embed.bias": torch.randn(16),
        "decoder_pos_embed": torch.randn(1, 17, 16),
        "decoder_pred.weight": torch.randn(768, 16),
        "decoder_pred.bias": torch.randn(768),
    }
    return saved(path, {"model": state, "epoch": 1, "optimizer": {"state": {}, "param_groups": []}}), state


def test_a_full_mae_fills_every_tensor_of_the_method(tmp_path: Path) -> None:
    path, tensors = mae_file(tmp_path / "full.pth")
    method = MAE(large_size=64, decoder_width=16, decoder_depth=1, decoder_heads=2).build(vit())
    report = import_full(path, method)
    state = method.state_dict()
    assert report.complete and {row.target for row in report.rows if row.fate == "converted"} == set(state)
    for name, theirs in {
        "encoder.model.pos_embed": "pos_embed",
        "objectives.pixels.decoder.positions": "decoder_pos_embed",
        "objectives.pixels.decoder.blocks.0.mlp.fc1.weight": "decoder_blocks.0.mlp.fc1.weight",
        "objectives.pixels.decoder.predict.bias": "decoder_pred.bias",
    }.items():
        assert torch.equal(state[name], tensors[theirs]), name


def test_backbones_are_found_in_full_and_in_small_files_and_the_rest_is_named(tmp_path: Path) -> None:
    state = backbone()
    paths = [
        saved(tmp_path / "dino.pth", state),
        saved(tmp_path / "ibot.pth", {"state_dict": state}),
        saved(tmp_path / "mae.pth", {"model": state}),
        ibot_file(tmp_path / "ibot_full.pth")[0],
        mae_file(tmp_path / "mae_full.pth")[0],
    ]
    for path in paths:
        encoder = vit()
        report = import_weights(path, encoder)
        assert report.complete, path
        assert torch.equal(encoder.model.state_dict()["blocks.1.mlp.fc2.weight"], state["blocks.1.mlp.fc2.weight"])


def test_a_tensor_nobody_knows_is_refused(tmp_path: Path) -> None:
    path, content = ibot_file(tmp_path / "checkpoint.pth")
    content["student"]["module.head.mlp9.weight"] = torch.zeros(2)
    with pytest.raises(IncompleteImport, match="mlp9"):
        import_full(saved(path, content), IBOT(**HEAD).build(vit()))
