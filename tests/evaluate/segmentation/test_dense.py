import pytest
import torch
import torch.nn.functional as F

from polygrain.evaluate.pixels import RawPixels
from polygrain.evaluate.segmentation.dense import Dense, Heads, LinearHead, OnMaps, dilated
from polygrain.parts.encoder import Encoder, EncoderSettings

TINY = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 4, "num_heads": 3}


def vit():
    return Encoder(EncoderSettings(name="vit_tiny_patch16_224", arguments=TINY))


def pixels(height, width):
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))


def test_patches_of_several_blocks_stand_side_by_side_each_after_the_final_norm():
    encoder = vit().eval()
    found = Dense(encoder, 2)(pixels(24, 40))
    assert found.shape == (2, 96, 3, 5)
    seen = encoder.features(pixels(24, 40)).patches.transpose(1, 2).unflatten(2, (3, 5))
    assert torch.allclose(found[:, 48:], seen, atol=1e-5)
    assert torch.allclose(found[:, :48].mean(1), torch.zeros(2, 3, 5), atol=1e-4)  # a layer norm without gain


def test_stages_of_a_cnn_are_brought_to_the_size_of_the_finest():
    encoder = Encoder(EncoderSettings(name="resnet18")).eval()
    dense = Dense(encoder, 3)
    found = dense(pixels(64, 96))
    assert dense.dim == 128 + 256 + 512
    assert found.shape == (2, dense.dim, 8, 12)
    last = encoder.levels(pixels(64, 96))[0].map
    expected = F.interpolate(last, size=(8, 12), mode="bilinear", align_corners=False)
    assert torch.equal(found[:, -512:], expected)


def test_a_dilated_resnet_is_the_same_network_with_a_finer_map():
    plain = Encoder(EncoderSettings(name="resnet18")).eval()
    finer = dilated(plain, 8).eval()
    assert finer.stride == 8
    assert Dense(finer)(pixels(64, 64)).shape == (2, 512, 8, 8)
    assert all(torch.equal(a, b) for a, b in zip(plain.state_dict().values(), finer.state_dict().values(), strict=True))
    assert torch.equal(plain.levels(pixels(64, 64), [2])[0].map, finer.levels(pixels(64, 64), [2])[0].map)


def test_only_a_resnet_can_be_dilated():
    with pytest.raises(ValueError, match="a vit has none"):
        dilated(vit(), 8)


def test_the_backbone_stays_frozen_and_in_evaluation_mode():
    dense = Dense(Encoder(EncoderSettings(name="resnet18"))).train()
    assert not any(part.training for part in dense.encoder.modules())
    assert not any(p.requires_grad for p in dense.parameters())
    assert not dense(pixels(32, 32)).requires_grad


def test_more_levels_than_there_are_are_refused():
    with pytest.raises(ValueError, match="levels is 5, and this backbone has 4"):
        Dense(vit(), 5)


def test_patches_of_raw_pixels_are_a_map():
    image = pixels(16, 24)
    found = Dense(RawPixels(patch_size=8, image_size=16))(image)
    assert found.shape == (2, 192, 2, 3)
    raw = image * torch.tensor([0.229, 0.224, 0.225]).view(-1, 1, 1) + torch.tensor([0.485, 0.456, 0.406]).view(
        -1, 1, 1
    )
    assert torch.allclose(found[1, :, 1, 2], raw[1, :, 8:, 16:].flatten(), atol=1e-6)


def test_a_head_of_vectors_answers_at_each_position_of_a_map():
    linear = torch.nn.Linear(5, 3)
    maps = torch.randn(2, 5, 4, 6, generator=torch.Generator().manual_seed(0))
    found = OnMaps(linear)(maps)
    assert found.shape == (2, 3, 4, 6)
    assert torch.allclose(found[1, :, 2, 5], linear(maps[1, :, 2, 5]), atol=1e-6)


def test_heads_answer_one_behind_the_other():
    heads = Heads(LinearHead(5, 3, batch_norm=True, dropout=0.1) for _ in range(2)).eval()
    maps = torch.randn(2, 5, 4, 6, generator=torch.Generator().manual_seed(0))
    first, second = heads(maps).chunk(2, dim=1)
    assert torch.equal(first, heads[0](maps))
    assert torch.equal(second, heads[1](maps))
