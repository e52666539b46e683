import copy
import math

import pytest
import timm
import torch
from timm.models import adapt_input_conv
from torch import Tensor, nn

from polygrain.parts.encoder import Encoder, EncoderSettings
from polygrain.parts.position import resample_as_dino
from polygrain.parts.sizes import ENCODERS
from polygrain.parts.stems import adapt_stem
from polygrain.parts.teacher import StudentTeacher
from polygrain.views import View


def encoder(name: str, **settings) -> Encoder:
    torch.manual_seed(0)
    return Encoder(EncoderSettings(name=name, **settings)).eval()


def tiny_vit(**arguments) -> dict:
    return {"arguments": {"img_size": 64, "patch_size": 16, "embed_dim": 32, "depth": 2, "num_heads": 2, **arguments}}


def view(size: int, count: int = 2, box=(10.0, 20.0, 80.0, 40.0), flipped: bool = False) -> View:
    pixels = torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(size))
    flags = torch.full((count,), flipped)
    return View(pixels, torch.tensor([box]).repeat(count, 1), flags, flags, torch.arange(count))


SMALL = [
    ("vit_tiny_patch16_224", tiny_vit()),
    ("vit_tiny_patch16_224", tiny_vit(class_token=False, global_pool="avg")),
    ("vit_tiny_patch16_224", tiny_vit(reg_tokens=3, no_embed_class=True)),
    ("resnet10t", {}),
    ("convnext_zepto_rms", {}),
    ("convnext_atto", {"arguments": {"head_norm_first": True, "ls_init_value": None, "depths": (1, 1, 1, 1)}}),
]


@pytest.mark.parametrize(("name", "settings"), SMALL)
def test_pooled_is_what_the_timm_model_returns_at_every_crop_size(name, settings):
    network = encoder(name, **settings)
    for size in (64, 96):
        encoding = network(view(size))
        assert torch.equal(encoding.pooled, network.model(view(size).pixels))
        assert encoding.pooled.shape == encoding.unnormed.shape == (2, network.dim)
        assert encoding.patches.shape == (2, (size // network.stride) ** 2, network.dim)
        assert encoding.centres.shape == (2, encoding.patches.shape[1], 2)


def test_a_vits_tokens_are_its_class_token_and_patches_after_the_norm_and_their_mean_before_it():
    network = encoder("vit_tiny_patch16_224", **tiny_vit(reg_tokens=2))
    nn.init.normal_(network.model.norm.weight)
    seen = network(view(64))
    taken: list[Tensor] = []
    network.model.norm.register_forward_hook(lambda module, inputs, output: taken.extend((inputs[0], output)))
    network.model(view(64).pixels)
    before, after = taken  # (2, 1 + 2 + 16, 32): class token, two registers, patches
    assert before.shape[1] == 19
    assert torch.equal(seen.pooled, after[:, 0])
    assert torch.equal(seen.patches, after[:, 3:])
    torch.testing.assert_close(seen.unnormed, before.mean(1))
    torch.testing.assert_close(network.final_norm(before), after)


def test_a_vicregl_convnext_norms_every_position_then_takes_the_mean():
    network = encoder("convnext_atto", arguments={"head_norm_first": True, "ls_init_value": None})
    assert all(block.gamma is None for stage in network.model.stages for block in stage.blocks)
    nn.init.normal_(network.model.norm_pre.weight)
    seen = network(view(96))
    last = network.model.stages(network.model.stem(view(96).pixels))  # (2, 320, 3, 3)
    centred = last - last.mean(1, keepdim=True)
    normed = centred / torch.sqrt(centred.square().mean(1, keepdim=True) + 1e-6)
    normed = normed * network.model.norm_pre.weight[:, None, None] + network.model.norm_pre.bias[:, None, None]
    torch.testing.assert_close(seen.patches[:, 5], normed[:, :, 1, 2])  # row-major
    torch.testing.assert_close(seen.pooled, normed.mean((2, 3)))
    torch.testing.assert_close(seen.unnormed, last.mean((2, 3)))


def test_an_ordinary_convnext_takes_the_mean_then_norms_it():
    network = encoder("convnext_atto")
    nn.init.normal_(network.model.head.norm.weight)
    seen = network(view(96))
    torch.testing.assert_close(seen.pooled, network.final_norm(seen.unnormed))
    assert not torch.allclose(seen.pooled, seen.patches.mean(1), atol=1e-2)


def test_centres_are_those_of_the_patches_in_the_source_image():
    network = encoder("vit_tiny_patch16_224", **tiny_vit())
    centres = network(view(32, count=1, box=(10.0, 20.0, 80.0, 40.0), flipped=True)).centres[0]
    # a 2x2 grid over rows 10..90 and columns 20..60, columns mirrored
    assert centres.tolist() == [[30.0, 50.0], [30.0, 30.0], [70.0, 50.0], [70.0, 30.0]]


def cubic(distance: float) -> float:
    """Keys' kernel with a = -0.75, torch's choice."""
    a, x = -0.75, abs(distance)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def resampled_by_hand(codes: Tensor, wanted: int) -> Tensor:
    """(14, 14) to (wanted, wanted) with coordinates (i + 1/2) 14 / (wanted + 0.1) - 1/2, borders repeated."""
    weights = torch.zeros(wanted, 14, dtype=torch.float64)
    for i in range(wanted):
        at = (i + 0.5) * 14 / (wanted + 0.1) - 0.5
        for tap in range(math.floor(at) - 1, math.floor(at) + 3):
            weights[i, min(max(tap, 0), 13)] += cubic(at - tap)
    return weights @ codes.double() @ weights.T


@pytest.mark.parametrize("wanted", [6, 7, 10, 16])
def test_dino_position_codes_equal_a_bicubic_sum_by_hand(wanted):
    positions = torch.randn(1, 1 + 14 * 14, 3, generator=torch.Generator().manual_seed(0))
    resized = resample_as_dino(positions, (14, 14), (wanted, wanted))
    assert torch.equal(resized[:, 0], positions[:, 0])
    for d in range(3):
        expected = resampled_by_hand(positions[0, 1:, d].reshape(14, 14), wanted)
        torch.testing.assert_close(resized[0, 1:, d].reshape(wanted, wanted).double(), expected, atol=1e-5, rtol=0)


def test_dino_and_timm_positions_agree_at_the_networks_own_size_and_differ_at_others():
    dino = encoder("vit_tiny_patch16_224", position="dino", **tiny_vit(img_size=224))
    ours = encoder("vit_tiny_patch16_224", position="timm", **tiny_vit(img_size=224))
    ours.load_state_dict(dino.state_dict())
    large, small = view(224, count=1), view(96, count=1)
    assert torch.equal(dino(large).pooled, ours(large).pooled)
    assert (dino(small).pooled - ours(small).pooled).abs().max() > 1e-3


def test_a_teacher_resamples_its_own_positions():
    pair = StudentTeacher(encoder("vit_tiny_patch16_224", position="dino", **tiny_vit()))
    before = pair.student(view(32)).pooled
    nn.init.zeros_(pair.teacher.model.pos_embed)
    assert torch.equal(pair.student(view(32)).pooled, before)
    assert not torch.allclose(pair.teacher(view(32)).pooled, before)


def test_a_random_vit_starts_as_in_mugs():
    network = encoder("vit_tiny_patch16_224", arguments={"embed_dim": 384, "depth": 2, "num_heads": 6})
    model = network.model
    for weight in (model.pos_embed, model.cls_token, model.blocks[1].attn.qkv.weight, model.blocks[0].mlp.fc2.weight):
        assert weight.std().item() == pytest.approx(0.02, rel=0.15)
    assert model.blocks[0].attn.qkv.bias.abs().max() == 0
    assert model.norm.eps == 1e-6
    limit = 1 / math.sqrt(3 * 16 * 16)  # torch's own convolution: uniform up to 1 / sqrt(fan in)
    assert 0.99 * limit < model.patch_embed.proj.weight.abs().max() <= limit


def test_drop_path_grows_linearly_with_depth():
    rates = [
        block.drop_path1.drop_prob if hasattr(block.drop_path1, "drop_prob") else 0.0
        for block in encoder("vit_tiny_patch16_224", **tiny_vit(depth=5, drop_path_rate=0.2)).model.blocks
    ]
    assert rates == pytest.approx([0.0, 0.05, 0.1, 0.15, 0.2])


def test_a_resnets_residual_branches_start_at_zero():
    model = encoder("resnet18").model
    assert all(block.bn2.weight.abs().max() == 0 for block in [*model.layer1, *model.layer4])


def test_gradient_checkpointing_changes_no_gradient():
    plain = encoder("vit_tiny_patch16_224", **tiny_vit())
    thrifty = encoder("vit_tiny_patch16_224", checkpointing=True, **tiny_vit())
    for network in (plain, thrifty):
        network.train()(view(64)).patches.square().sum().backward()
    for one, other in zip(plain.parameters(), thrifty.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "settings"), [("vit_tiny_patch16_224", {"position": "dino", **tiny_vit()}), SMALL[5]])
def test_a_compiled_encoder_computes_the_same(name, settings):
    torch._dynamo.reset()
    plain = encoder(name, **settings)
    compiled = copy.deepcopy(plain)
    compiled.compile(backend="aot_eager")
    for size in (64, 96):
        for one, other in zip(plain(view(size))[1:], compiled(view(size))[1:], strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    assert list(plain.state_dict()) == list(compiled.state_dict())


@pytest.mark.parametrize(("name", "settings"), SMALL)
def test_bfloat16_autocast_stays_near_float32(name, settings):
    network = encoder(name, **settings)
    exact = network(view(64))
    with torch.autocast("cpu", torch.bfloat16):
        rough = network(view(64))
    assert torch.cosine_similarity(exact.pooled, rough.pooled.float()).min() > 0.99
    assert torch.cosine_similarity(exact.unnormed, rough.unnormed.float()).min() > 0.99


def vit_parameters(dim: int, depth: int) -> int:
    """By hand, for 64 patches of 8x8: embedding, position and class codes, blocks, last norm."""
    return dim * (3 * 8 * 8 + 1) + (64 + 1 + 1) * dim + depth * (12 * dim**2 + 13 * dim) + 2 * dim


def convnext_parameters(stages: list[tuple[int, int, int]], stem: int) -> int:
    """By hand, without layer scale, from (width, blocks, kernel) of each stage."""
    total, before = 3 * stem**2 * stages[0][0] + 3 * stages[0][0], stages[0][0]
    for width, blocks, kernel in stages:
        total += 2 * before + 4 * before * width + width  # norm and 2x2 convolution
        total += blocks * (kernel**2 * width + 8 * width**2 + 8 * width)
        before = width
    return total + 2 * before


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("vit_mini_64", vit_parameters(192, 6)),
        ("vit_tiny_64", vit_parameters(192, 12)),
        ("vit_small_64", vit_parameters(384, 12)),
        ("resnet18_64", 11_176_512 - 64 * 3 * (49 - 9)),  # torchvision's ResNet-18 without fc, smaller stem
        ("convnext_femto_64", convnext_parameters([(48, 2, 7), (96, 2, 7), (192, 6, 5), (384, 2, 3)], 2)),
    ],
)
def test_ready_made_sizes_see_64_pixels_as_an_8x8_grid(name, parameters):
    network = encoder(name)
    assert network.image_size == 64
    assert network(view(64, count=1)).patches.shape[1] == 64
    assert sum(p.numel() for p in network.parameters()) == parameters


@pytest.mark.parametrize(
    ("name", "millions"), [("convnext_small_vicregl", 49_441_152), ("convnext_base_vicregl", 87_548_416)]
)
def test_vicregl_convnexts_have_the_official_number_of_parameters(name, millions):
    with torch.device("meta"):
        assert sum(p.numel() for p in Encoder(EncoderSettings(name=name)).parameters()) == millions


def test_every_ready_made_encoder_is_built_from_a_timm_model():
    assert all(timm.is_model(ready_made.name) for ready_made in ENCODERS.values())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "vit_smal_64"}, "nearest names: vit_small_64"),
        ({"name": "resnet18.nothing"}, "timm has no weights 'resnet18.nothing'; it has .*resnet18.a1_in1k"),
        ({"name": "vit_tiny_64", "pretrained": True}, "timm has some for vit_tiny_patch16_224"),
        ({"name": "vit_tiny_64", "arguments": {"depht": 3}}, "unexpected keyword argument 'depht'"),
        ({"name": "vit_tiny_64", "arguments": {"num_heads": 5}}, "divisible by num_heads"),
        ({"name": "vit_tiny_64", "arguments": {"img_size": 65}}, "65 px .* patches of 8 px; nearest sizes: 64 and 72"),
        ({"name": "swin_tiny_patch4_window7_224"}, "SwinTransformer is not among"),
        ({"name": "resnet10t", "position": "dino"}, "learned positions, not ResNet"),
    ],
)
def test_an_encoder_that_cannot_be_built_says_why(settings, message):
    with pytest.raises(ValueError, match=message):
        Encoder(EncoderSettings(**settings))


def test_crop_sizes_are_checked_before_training():
    network = encoder("vit_tiny_patch16_224", **tiny_vit())
    network.check_size(96)
    with pytest.raises(ValueError, match=r"100 px .* patches of 16 px; nearest sizes: 96 and 112"):
        network.check_size(100)
    with pytest.raises(ValueError, match=r"10 px .* nearest sizes: 16"):
        network.check_size(10)
    with pytest.raises(ValueError, match="use 32 px or more"):
        encoder("resnet10t").check_size(16)


STEMS = [
    ("vit_tiny_patch16_224", tiny_vit()),
    ("vit_mini_64", {"arguments": {"depth": 1}}),
    ("resnet10t", {}),
    ("resnet18_64", {}),
    ("convnext_atto", {"arguments": {"depths": (1, 1, 1, 1)}}),
]


def adapted(name: str, channels: int, settings: dict) -> tuple[Encoder, Encoder]:
    """A network for RGB, and one of the same weights for other channels."""
    colour, other = encoder(name, **settings), encoder(name, channels=channels, **settings)
    other.model.load_state_dict(adapt_stem(colour.model.state_dict(), other.model))
    return colour, other


@pytest.mark.parametrize(("name", "settings"), STEMS)
def test_a_gray_image_gives_with_the_summed_stem_what_three_equal_channels_gave(name, settings):
    colour, gray = adapted(name, 1, settings)
    image = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    one, three = gray.features(image), colour.features(image.expand(-1, 3, -1, -1))
    torch.testing.assert_close(one.pooled, three.pooled, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(one.patches, three.patches, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("name", "settings"), STEMS[:1] + STEMS[3:])
def test_equal_channels_give_the_same_through_a_stem_of_six(name, settings):
    colour, other = adapted(name, 6, settings)
    image = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    six, three = (network.features(image.expand(-1, n, -1, -1)).pooled for network, n in ((other, 6), (colour, 3)))
    torch.testing.assert_close(six, three, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 13])
def test_stems_are_adapted_as_timm_does_it(channels):
    colour, other = adapted("vit_tiny_patch16_224", channels, tiny_vit())
    weight = colour.model.patch_embed.proj.weight
    assert other.channels == channels
    assert torch.equal(other.model.patch_embed.proj.weight, adapt_input_conv(channels, weight))


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_timms_own_weights_are_adapted_when_they_are_loaded(channels, monkeypatch):
    colour = encoder("resnet18", arguments={})
    weights = {**colour.model.state_dict(), "fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
    monkeypatch.setattr(
        timm.models._builder, "_resolve_pretrained_source", lambda *_args, **_kwargs: ("state_dict", weights)
    )
    loaded = Encoder(EncoderSettings(name="resnet18", pretrained=True, channels=channels))
    expected = adapt_stem(colour.model.state_dict(), loaded.model)
    assert all(torch.equal(tensor, expected[key]) for key, tensor in loaded.model.state_dict().items())


def test_weights_of_many_channels_cannot_be_adapted():
    other = encoder("resnet10t", channels=13)
    with pytest.raises(ValueError, match="are for images of 13 channels, not 4; only those for 1 or 3"):
        adapt_stem(other.model.state_dict(), encoder("resnet10t", channels=4).model)
    with pytest.raises(ValueError, match="in_chans is 4; give the number of channels as channels"):
        encoder("resnet10t", arguments={"in_chans": 4})
