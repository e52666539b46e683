import pytest
import timm
import torch

from polygrain.evaluate.pixels import RawPixels
from polygrain.evaluate.readouts import check_readout, columns, covering, read_out
from polygrain.parts.encoder import Encoder, EncoderSettings

ARGUMENTS = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 5, "num_heads": 3}
READOUTS = ("cls1", "cls4", "mean", "cls1+mean", "cls4+mean")


@pytest.fixture(scope="module")
def seen():
    """An encoder, pixels, and the tokens after each of timm's blocks, each after the final norm, by hooks."""
    encoder = Encoder(EncoderSettings(name="vit_tiny_patch16_224", arguments=ARGUMENTS)).eval()
    pixels = torch.randn(3, 3, 32, 32)
    twin = timm.create_model("vit_tiny_patch16_224", num_classes=0, dynamic_img_size=True, **ARGUMENTS).eval()
    twin.load_state_dict(encoder.model.state_dict())
    tokens = []
    for block in twin.blocks:
        block.register_forward_hook(lambda module, given, out: tokens.append(out))
    with torch.no_grad():
        torch.nn.init.normal_(encoder.model.norm.weight)
        twin.norm.weight.copy_(encoder.model.norm.weight)
        whole = twin(pixels)
        normed = [twin.norm(token) for token in tokens]  # (3, 1 + 16, 48) each
    return encoder, pixels, normed, whole


def expected(readout, normed):
    parts = [token[:, 0] for token in normed[-4:]] if "cls4" in readout else []
    parts = [normed[-1][:, 0]] if "cls1" in readout else parts
    return torch.cat([*parts, *([normed[-1][:, 1:].mean(1)] if "mean" in readout else [])], dim=1)


@pytest.mark.parametrize("readout", READOUTS)
def test_a_readout_is_what_timms_blocks_give_by_hand(seen, readout):
    encoder, pixels, normed, _ = seen
    with torch.no_grad():
        read = read_out(encoder, pixels, readout)
    torch.testing.assert_close(read.vectors, expected(readout, normed), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(read.patches, normed[-1][:, 1:], atol=1e-5, rtol=1e-5)
    assert read.grid == (4, 4)


def test_pooled_is_what_timms_model_returns(seen):
    encoder, pixels, _, whole = seen
    with torch.no_grad():
        torch.testing.assert_close(read_out(encoder, pixels, "pooled").vectors, whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("several", "whole"),
    [
        (("cls1", "cls4"), "cls4"),
        (("cls1", "mean"), "cls1+mean"),
        (("mean",), "mean"),
        (READOUTS, "cls4+mean"),
        (("pooled",), "pooled"),
    ],
)
def test_one_readout_covers_several_and_each_is_found_in_it(seen, several, whole):
    encoder, pixels, normed, pooled = seen
    assert covering(several) == whole
    with torch.no_grad():
        vectors = read_out(encoder, pixels, whole).vectors
    for readout in several:
        wanted = pooled if readout == "pooled" else expected(readout, normed)
        torch.testing.assert_close(vectors[:, columns(readout, whole, vectors.shape[1])], wanted, atol=1e-5, rtol=1e-5)


def test_the_mean_of_a_resnet_is_that_of_its_last_map():
    encoder = Encoder(EncoderSettings(name="resnet18_64")).eval()
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        wanted = encoder.model.forward_features(pixels).mean((2, 3))
        torch.testing.assert_close(read_out(encoder, pixels, "mean").vectors, wanted)


@pytest.mark.parametrize(
    ("encoder", "readout", "message"),
    [
        (RawPixels(), "mean", "raw pixels have no readout 'mean'; use pooled"),
        (EncoderSettings(name="resnet18_64"), "cls1", "resnet18_64 has no class token .* use pooled or mean"),
        (
            EncoderSettings(name="vit_mini_64", arguments={"class_token": False, "global_pool": "avg", "depth": 1}),
            "cls1",
            "no class token",
        ),
        (EncoderSettings(name="vit_mini_64", arguments={"depth": 2}), "cls4", "has 2 blocks, and 'cls4' takes 4"),
    ],
)
def test_a_readout_that_an_encoder_has_not_is_refused(encoder, readout, message):
    built = encoder if isinstance(encoder, RawPixels) else Encoder(encoder)
    with pytest.raises(ValueError, match=message):
        check_readout(built, readout)
