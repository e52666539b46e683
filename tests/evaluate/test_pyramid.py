import pytest
import torch
from torch import Tensor, nn

from polygrain.evaluate.pyramid import Pyramid, SimplePyramid, taps
from polygrain.parts.encoder import Encoder, EncoderSettings


def vit(depth: int = 4, patch: int = 8, **arguments: object) -> Encoder:
    torch.manual_seed(0)
    sizes = {"img_size": 32, "patch_size": patch, "embed_dim": 48, "depth": depth, "num_heads": 3}
    return Encoder(EncoderSettings(name="vit_tiny_patch16_224", arguments={**sizes, **arguments})).eval()


def pixels() -> Tensor:
    return torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))


def test_a_vit_of_twelve_blocks_is_tapped_where_the_papers_do() -> None:
    assert taps(12) == (3, 5, 7, 11)


def test_a_vit_of_twenty_four_blocks_is_tapped_at_the_same_shares() -> None:
    assert taps(24) == (7, 11, 15, 23)


@pytest.mark.parametrize("kind", [lambda: Pyramid(vit(), normed=False), lambda: SimplePyramid(vit(), channels=16)])
def test_maps_of_a_vit_have_the_sides_that_the_strides_say(kind: object) -> None:
    pyramid = kind()  # type: ignore[operator]
    shapes = [tuple(found.shape) for found in pyramid(pixels())]
    assert shapes == [(2, c, 64 // s, 96 // s) for c, s in zip(pyramid.channels, pyramid.strides, strict=True)]
    assert pyramid.strides == (2, 4, 8, 16)


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto"])
def test_stages_of_a_cnn_are_the_pyramid(name: str) -> None:
    encoder = Encoder(EncoderSettings(name=name)).eval()
    pyramid = Pyramid(encoder, normed=False)
    maps = pyramid(pixels())
    assert pyramid.strides == (4, 8, 16, 32)
    assert [tuple(found.shape[1:]) for found in maps] == [
        (c, 64 // s, 96 // s) for c, s in zip(pyramid.channels, pyramid.strides, strict=True)
    ]
    if name == "resnet18":
        torch.testing.assert_close(maps[-1], encoder.model.forward_features(pixels()))


def test_the_third_level_is_the_third_tap_as_it_comes() -> None:
    encoder = vit()
    caught: list[Tensor] = []
    encoder.model.blocks[2].register_forward_hook(lambda *called: caught.append(called[2]))
    third = Pyramid(encoder, normed=False).eval()(pixels())[2]
    torch.testing.assert_close(third.flatten(2).transpose(1, 2), caught[0][:, 1:])  # without the class token


def test_a_simple_pyramid_is_built_on_the_last_block_as_it_comes() -> None:
    encoder = vit()
    encoder.model.norm.weight.data.uniform_()
    caught: list[Tensor] = []
    encoder.model.blocks[-1].register_forward_hook(lambda *called: caught.append(called[2]))
    pyramid = SimplePyramid(encoder, channels=16).eval()
    pyramid.resize[2].register_forward_pre_hook(lambda _, given: caught.append(given[0]))
    pyramid(pixels())
    torch.testing.assert_close(caught[1].flatten(2).transpose(1, 2), caught[0][:, 1:])  # without the class token


def test_the_third_level_is_normed_where_asked() -> None:
    encoder = vit()
    encoder.model.norm.weight.data.uniform_()
    third, normed = (Pyramid(encoder, normed=normed).eval()(pixels())[2] for normed in (False, True))
    torch.testing.assert_close(normed, encoder.model.norm(third.movedim(1, -1)).movedim(-1, 1))


def test_the_fourth_level_is_the_largest_of_each_four_cells() -> None:
    encoder = vit()
    fourth = Pyramid(encoder, normed=False).eval()(pixels())[3]
    last = encoder.levels(pixels(), [3], normed=False)[0].map
    torch.testing.assert_close(fourth, last.unflatten(2, (4, 2)).unflatten(4, (6, 2)).amax((3, 5)))


def test_a_vit_of_three_blocks_gives_four_levels() -> None:
    assert len(Pyramid(vit(depth=3), normed=False)(pixels())) == 4


def test_gradients_reach_the_encoder_through_every_level() -> None:
    pyramid = Pyramid(vit(), normed=False)
    for level in range(4):
        pyramid.zero_grad()
        pyramid(pixels())[level].square().sum().backward()
        gradient = pyramid.encoder.model.patch_embed.proj.weight.grad
        assert gradient is not None and gradient.abs().sum() > 0


def test_the_enlargement_is_that_of_the_official_code() -> None:
    quadruple, double, same, half = Pyramid(vit(), normed=False).resize
    kinds = [type(layer) for layer in quadruple]  # type: ignore[union-attr]
    assert kinds == [nn.ConvTranspose2d, nn.BatchNorm2d, nn.GELU, nn.ConvTranspose2d]
    assert [type(level) for level in (double, same, half)] == [nn.ConvTranspose2d, nn.Identity, nn.MaxPool2d]


def test_patches_that_four_does_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="patches of 14 px cannot be divided by 4"):
        Pyramid(vit(patch=14, img_size=28), normed=False)
