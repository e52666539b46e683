"""Masked patches on methods that have none: a Mugs that is an iBOT too."""

from typing import Any

import pytest
import torch

from polygrain.methods.adding_patches import MaskedPatchSettings
from polygrain.methods.base import Method
from polygrain.methods.ibot import IBOT
from polygrain.methods.mae import MAE
from polygrain.methods.mugs import Mugs
from polygrain.methods.simclr import SimCLR
from polygrain.parts.encoder import Encoder, EncoderSettings
from polygrain.schedules import Time
from tests.methods.views import random_views

NOW = Time(100, 100, 10)
PATCHES = MaskedPatchSettings(hidden=16, prototype_dim=8, prototypes=16, mask_probability=1.0)
HEADS: dict[str, Any] = {"hidden": 16, "prototype_dim": 8, "prototypes": 16, "large_size": 32, "small_size": 16}
MUGS: dict[str, Any] = {
    **HEADS, "predictor_hidden": 16, "out": 8, "queue_size": 32, "memory_size": 32, "neighbours": 2, "small_crops": 1
}  # fmt: skip


def vit() -> Encoder:
    torch.manual_seed(0)
    arguments = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
    return Encoder(EncoderSettings(name="vit_small_patch16_224", position="dino", arguments=arguments))


def trained_by_a_step(method: Method) -> None:
    views = random_views(method.crops, 4)
    terms = method.train()(views, NOW)
    terms["loss"].backward()
    assert terms["patches/cross_entropy"] > 0
    for name, parameter in method.named_parameters():
        trained = parameter.grad is not None and bool(parameter.grad.any())
        assert trained == parameter.requires_grad, name


def test_mugs_learns_from_masked_patches_too() -> None:
    method = Mugs(**MUGS, share_large_crops=True).build(vit())
    PATCHES.add_to(method)
    trained_by_a_step(method)
    assert [crops.name for crops in method.crops if crops.mask is not None] == ["teacher"]


def test_simclr_learns_from_masked_patches_of_a_teacher_that_is_made_for_it() -> None:
    method = SimCLR(large_size=32, hidden=16, out=8).build(vit())
    PATCHES.add_to(method)
    trained_by_a_step(method)


def test_what_masked_patches_cannot_be_added_to_is_refused_with_the_reason() -> None:
    with pytest.raises(ValueError, match="share-large-crops"):
        PATCHES.add_to(Mugs(**MUGS).build(vit()))
    for settings in (IBOT(**HEADS), MAE(large_size=32, decoder_width=16, decoder_depth=1, decoder_heads=2)):
        with pytest.raises(ValueError, match="hides patches itself"):
            PATCHES.add_to(settings.build(vit()))
    with pytest.raises(ValueError, match="needs a ViT"):
        PATCHES.add_to(Mugs(**MUGS, share_large_crops=True).build(Encoder(EncoderSettings(name="resnet10t"))))
