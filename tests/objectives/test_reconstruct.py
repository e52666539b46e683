"""Pixels of hidden patches: MAE's targets, loss and decoder, one patch at a time."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from polygrain.losses.reconstruction import masked_mean_square, normalised_patches
from polygrain.methods.mae import MAE
from polygrain.parts.decoder import TokenDecoder, patch_pixels
from polygrain.parts.encoder import Encoder, EncoderSettings
from polygrain.parts.sincos import sincos_positions
from polygrain.schedules import RunLength, Time
from tests.methods.views import random_views

NOW = Time(100, 100, 10)
TOY = MAE(large_size=32, decoder_width=16, decoder_depth=2, decoder_heads=2)


def vit(**arguments) -> Encoder:
    torch.manual_seed(0)
    size = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, **arguments}
    return Encoder(EncoderSettings(name="vit_small_patch16_224", position="dino", arguments=size))


def targets(pixels: Tensor) -> Tensor:
    """Row by row, channels last, each patch normalised with its unbiased variance."""
    images = []
    for image in pixels:
        patches = []
        for row in range(0, image.shape[1], 8):
            for column in range(0, image.shape[2], 8):
                values = [
                    image[channel, row + y, column + x] for y in range(8) for x in range(8) for channel in range(3)
                ]
                patch = torch.stack(values)
                patches.append((patch - patch.mean()) / torch.sqrt(patch.var(unbiased=True) + 1e-6))
        images.append(torch.stack(patches))
    return torch.stack(images)


def test_targets_are_normalised_patches_row_by_row_with_channels_last() -> None:
    pixels = torch.randn(2, 3, 16, 24)
    torch.testing.assert_close(normalised_patches(patch_pixels(pixels, 8)), targets(pixels))


def test_predicting_zeros_costs_one_less_than_a_share_of_the_pixels() -> None:
    wanted = normalised_patches(torch.rand(2, 196, 768))
    hidden = torch.zeros(2, 196, dtype=torch.bool)
    hidden[:, :147] = True
    loss = masked_mean_square(torch.zeros_like(wanted), wanted, hidden)
    assert loss.item() == pytest.approx(767 / 768, abs=2e-5)


def test_predictions_of_visible_patches_cost_nothing() -> None:
    predictions, wanted = torch.randn(2, 6, 5), torch.randn(2, 6, 5)
    hidden = torch.tensor([[1, 0, 1, 1, 0, 0], [0, 1, 1, 0, 0, 1]], dtype=torch.bool)
    loss = masked_mean_square(predictions, wanted, hidden)
    by_hand = [((predictions[b, n] - wanted[b, n]) ** 2).mean() for b in range(2) for n in range(6) if hidden[b, n]]
    torch.testing.assert_close(loss, torch.stack(by_hand).sum() / 6)
    changed = torch.where(hidden[..., None], predictions, torch.randn_like(predictions))
    assert torch.equal(masked_mean_square(changed, wanted, hidden), loss)


def test_the_loss_of_a_step_is_that_of_the_paper_written_out() -> None:
    method = TOY.build(vit()).train()
    views = random_views(method.crops, 3)
    terms = method(views, NOW)
    view, model, decoder = views["large"][0], method.student.model, method.objectives["pixels"].decoder
    wanted, total, count = targets(view.pixels), torch.tensor(0.0), 0
    codes = sincos_positions((4, 4), 16, first="column")[0]
    for image in range(3):
        hidden = view.hidden[image].tolist()
        kept = [i for i in range(16) if not hidden[i]]
        embedded = model.patch_embed(view.pixels[image : image + 1])[0].flatten(0, 1) + model.pos_embed[0, 1:]
        tokens = torch.cat([model.cls_token[0], embedded[kept]])[None]  # the code of the class token is 0
        encoded = F.linear(model.norm(model.blocks(tokens))[0], decoder.embed.weight, decoder.embed.bias)
        row = [encoded[0] + codes[0]]
        all_patches = [decoder.mask_token[0, 0] if hidden[i] else encoded[1 + kept.index(i)] for i in range(16)]
        row += [vector + code for vector, code in zip(all_patches, codes[1:], strict=True)]
        predictions = decoder.predict(decoder.norm(decoder.blocks(torch.stack(row)[None])))[0, 1:]
        for i in range(16):
            if hidden[i]:
                total = total + ((predictions[i] - wanted[image, i]) ** 2).mean()
                count += 1
    assert count == 36
    torch.testing.assert_close(terms["loss"], total / count)


def test_mae_begins_as_its_paper_says() -> None:
    method = TOY.build(vit(embed_dim=96, num_heads=3))
    model = method.student.model
    kernel = model.patch_embed.proj.weight
    bound = math.sqrt(6 / (96 + 192))  # as a linear layer of 192 numbers
    assert kernel.abs().max() <= bound and kernel.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
    qkv = model.blocks[0].attn.qkv.weight
    assert qkv.std().item() == pytest.approx(math.sqrt(2 / (96 + 288)), rel=0.05) and not model.norm.bias.any()
    assert not model.pos_embed.requires_grad and not model.pos_embed[0, 0].any()
    # patches of one column share the first half of their codes
    grid = model.pos_embed[0, 1:].view(4, 4, 96)
    assert torch.equal(grid[0, 2, :48], grid[3, 2, :48]) and torch.equal(grid[1, 0, 48:], grid[1, 3, 48:])


def test_the_first_loss_is_near_that_of_random_predictions() -> None:
    torch.manual_seed(0)
    decoder = TokenDecoder(32, width=512, depth=1, heads=16, grid=(14, 14), out=768)
    hidden = torch.ones(2, 196, dtype=torch.bool)
    hidden[:, ::4] = False
    predictions = decoder(torch.randn(2, 32), torch.randn(2, 49, 32), hidden)
    # unit-length normed tokens through a Glorot layer: variance 512 * 2 / (512 + 768)
    assert predictions.var().item() == pytest.approx(0.8, rel=0.1)


def test_rates_rise_for_forty_epochs_and_fall_to_zero() -> None:
    length = RunLength(images=4096 * 10, batch_size=4096, epochs=100, steps_per_epoch=10)
    optimization = MAE().optimization(length)
    at = [optimization.lr(Time(step, 10, 100)) for step in (0, 200, 400, 700, 999)]
    assert at[:4] == pytest.approx([0, 1.2e-3, 2.4e-3, 1.2e-3]) and at[4] < 1e-7
    assert optimization.betas == (0.9, 0.95) and optimization.clip is None


def test_a_ratio_that_shows_or_hides_nothing_is_refused() -> None:
    for ratio in (0.99, 1.0):
        with pytest.raises(ValueError, match=r"of 16 patches"):
            MAE(large_size=32, mask_ratio=ratio).build(vit())
