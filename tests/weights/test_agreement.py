"""Every lie that shapes cannot tell is injected, and must be caught."""

import pytest
import torch
from torch import nn

from polygrain.parts.encoder import Encoder, EncoderSettings
from polygrain.weights import importing
from polygrain.weights.agreement import check_activations
from polygrain.weights.importing import import_weights
from polygrain.weights.tables import Rule
from tests.weights import official

TINY = {"img_size": 64, "patch_size": 16, "embed_dim": 48, "depth": 3, "num_heads": 3}
STATE = official.random_vit(dim=48, depth=3, grid=4, relation=False)


def vit(**arguments) -> Encoder:
    encoder = Encoder(EncoderSettings(name="vit_tiny_patch16_224", position="dino", arguments={**TINY, **arguments}))
    encoder.model.load_state_dict(STATE, strict=False)
    return encoder


def check(encoder: Encoder, state=STATE) -> str:
    return check_activations(encoder, state, "file.pth")


def refuses(encoder: Encoder, part: str, state=STATE) -> None:
    with pytest.raises(ValueError, match=rf"file\.pth gives other activations .* first in {part} "):
        check(encoder, state)


def test_an_honest_vit_agrees_and_its_mode_is_kept():
    encoder = vit().train()
    assert "in 8 parts" in check(encoder)
    assert encoder.training and encoder.model.blocks[2].training


def test_another_number_of_heads_is_caught_in_the_block_that_has_it():
    encoder = vit()
    encoder.model.blocks[1].attn.num_heads, encoder.model.blocks[1].attn.head_dim = 6, 8
    encoder.model.blocks[1].attn.scale = 8**-0.5
    refuses(encoder, r"blocks\.1")


def test_another_scale_of_the_attention_is_caught():
    encoder = vit()
    encoder.model.blocks[2].attn.scale, encoder.model.blocks[2].attn.fused_attn = 1.0, False
    refuses(encoder, r"blocks\.2")


@pytest.mark.parametrize("order", [(0, 2, 1), (1, 0, 2), (2, 1, 0)])
def test_another_order_of_query_key_and_value_is_caught(order):
    encoder = vit()
    qkv = encoder.model.blocks[0].attn.qkv
    for tensor in (qkv.weight.data, qkv.bias.data):
        tensor.copy_(torch.cat([tensor.chunk(3)[i] for i in order]))
    refuses(encoder, r"blocks\.0")


def test_rows_and_columns_of_position_codes_changed_over_are_caught():
    encoder = vit()
    codes = encoder.model.pos_embed.data
    codes[:, 1:] = codes[:, 1:].reshape(1, 4, 4, 48).transpose(1, 2).reshape(1, 16, 48)
    refuses(encoder, "pos_embed")


def test_position_codes_that_are_not_added_are_caught():
    encoder = vit()
    encoder.model.pos_embed.data.zero_()
    refuses(encoder, "pos_embed")


def test_a_layer_scale_that_is_silently_off_is_caught():
    state = {**STATE, "blocks.1.ls1.gamma": torch.full((48,), 0.1), "blocks.1.ls2.gamma": torch.ones(48)}
    refuses(vit(), r"blocks\.1", state)


def test_a_layer_scale_that_the_authors_do_not_have_is_caught():
    refuses(vit(init_values=1e-5), r"blocks\.0")


@pytest.mark.parametrize("eps", [1e-5, 1e-12])
def test_another_epsilon_of_a_norm_is_caught(eps):
    encoder = vit()
    encoder.model.blocks[2].norm2.eps = eps
    refuses(encoder, r"blocks\.2\.norm2")
    encoder = vit()
    encoder.model.blocks[1].norm1.eps = eps
    refuses(encoder, r"blocks\.1")
    encoder = vit()
    encoder.model.norm.eps = eps
    refuses(encoder, "norm")


def test_another_activation_and_pooling_over_patches_are_caught():
    encoder = vit()
    encoder.model.blocks[1].mlp.act = nn.GELU(approximate="tanh")
    refuses(encoder, r"blocks\.1")
    encoder = vit()
    encoder.model.global_pool = "avg"
    refuses(encoder, "norm")


def resnet() -> tuple[Encoder, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    encoder = Encoder(EncoderSettings(name="resnet50"))
    state = official.random_resnet()
    encoder.model.load_state_dict(state)
    return encoder, state


def test_a_resnet_agrees_and_its_lies_are_caught():
    encoder, state = resnet()
    assert "in 17 parts" in check(encoder, state)
    encoder.model.layer3[0].conv1.stride, encoder.model.layer3[0].conv2.stride = (2, 2), (1, 1)  # as in the first paper
    refuses(encoder, r"layer3\.0", state)
    encoder, state = resnet()
    encoder.model.bn1.running_var.fill_(1)
    refuses(encoder, "conv1", state)
    encoder, state = resnet()
    encoder.model.layer4[2].bn3.eps = 0.1
    refuses(encoder, r"layer4\.2", state)


def test_a_convnext_agrees_and_its_lies_are_caught():
    state = official.random_convnext()
    encoder = Encoder(EncoderSettings(name="convnext_small_vicregl"))
    report = importing.fill_encoder(state, "file.pth", encoder)
    assert any("in 77 parts" in note for note in report.notes)
    encoder.model.stages[1].blocks[2].norm.eps = 1e-5
    refuses(encoder, r"stages\.1\.2", state)
    encoder.model.stages[0].blocks[1].gamma = nn.Parameter(torch.full((96,), 1e-6))
    refuses(encoder, r"stages\.0\.1", state)
    encoder.model.stem[1].eps = 1e-3
    refuses(encoder, r"downsample_layers\.0", state)


def test_a_key_table_that_lies_is_caught_at_the_import(tmp_path, monkeypatch):
    torch.save(STATE, tmp_path / "file.pth")
    lie = Rule(r"(blocks\.1\.attn\.qkv\.weight)", r"\1", convert=lambda tensor: tensor.roll(48, 0))
    monkeypatch.setitem(importing.TABLES, "vit", (lie, *importing.TABLES["vit"]))
    with pytest.raises(ValueError, match=r"other activations .* first in blocks\.1 "):
        import_weights(tmp_path / "file.pth", vit())


def test_parts_that_may_be_missing_are_left_out_of_the_comparison(tmp_path):
    torch.save({key: value for key, value in STATE.items() if key != "blocks.0.norm1.bias"}, tmp_path / "file.pth")
    report = import_weights(tmp_path / "file.pth", vit(), allow_missing=True)
    assert any("in 6 parts" in note for note in report.notes)
