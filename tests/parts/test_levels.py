"""What a backbone holds at its depths, against timm's own functions and by hand."""

import pytest
import timm
import torch

from polygrain.parts.encoder import Encoder, EncoderSettings

TINY = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 4, "num_heads": 3}


@pytest.fixture
def vit():
    torch.manual_seed(0)
    return Encoder(EncoderSettings(name="vit_tiny_patch16_224", arguments=TINY)).eval()


def test_blocks_are_those_of_a_forward_pass_stopped_early(vit):
    pixels = torch.randn(2, 3, 32, 48)
    found = vit.levels(pixels, [1, 3])
    tokens = vit.model._pos_embed(vit.model.patch_embed(pixels))
    for i, block in enumerate(vit.model.blocks):
        tokens = block(tokens)
        if i in (1, 3):
            level = found[0 if i == 1 else 1]
            normed = vit.model.norm(tokens)
            torch.testing.assert_close(level.cls, normed[:, 0])
            torch.testing.assert_close(level.map, normed[:, 1:].unflatten(1, (4, 6)).permute(0, 3, 1, 2))


def test_the_last_level_is_what_features_gives(vit):
    pixels = torch.randn(2, 3, 32, 32)
    (last,) = vit.levels(pixels)
    features = vit.features(pixels)
    torch.testing.assert_close(last.map.flatten(2).transpose(1, 2), features.patches)
    torch.testing.assert_close(last.cls, features.pooled)


def test_the_final_norm_can_be_left_out(vit):
    pixels = torch.randn(2, 3, 32, 32)
    (raw,), (normed,) = vit.levels(pixels, normed=False), vit.levels(pixels)
    torch.testing.assert_close(vit.final_norm(raw.cls), normed.cls)
    assert not torch.allclose(raw.cls, normed.cls)


def test_a_vit_without_class_token_has_maps_alone():
    torch.manual_seed(0)
    arguments = {**TINY, "class_token": False, "global_pool": "avg"}
    encoder = Encoder(EncoderSettings(name="vit_tiny_patch16_224", arguments=arguments)).eval()
    pixels = torch.randn(2, 3, 32, 48)
    (last,) = encoder.levels(pixels)
    assert last.cls is None
    torch.testing.assert_close(last.map.flatten(2).transpose(1, 2), encoder.features(pixels).patches)


def test_dino_position_codes_reach_the_levels_too():
    torch.manual_seed(0)
    dino = Encoder(EncoderSettings(name="vit_tiny_patch16_224", arguments=TINY, position="dino")).eval()
    pixels = torch.randn(1, 3, 16, 16)
    (last,) = dino.levels(pixels)
    torch.testing.assert_close(last.cls, dino.features(pixels).pooled)


@pytest.mark.parametrize(("name", "depth"), [("resnet18", 5), ("convnext_femto_64", 4)])
def test_stages_of_a_convolutional_network_are_timms(name, depth):
    torch.manual_seed(0)
    encoder = Encoder(EncoderSettings(name=name)).eval()
    assert encoder.depth == depth
    levels = encoder.levels(torch.randn(1, 3, 64, 64), 4)
    assert all(level.cls is None for level in levels)
    sides = [level.map.shape[2] for level in levels]
    assert sides == sorted(sides, reverse=True)
    if name == "resnet18":
        taps = timm.create_model("resnet18", features_only=True).eval()
        taps.load_state_dict(encoder.model.state_dict(), strict=False)
        pixels = torch.randn(1, 3, 64, 64)
        for ours, theirs in zip(encoder.levels(pixels, 4), taps(pixels)[1:], strict=True):
            torch.testing.assert_close(ours.map, theirs)
