import sys

import pytest
import torch

from polygrain.evaluate.models import weights_sha256
from polygrain.evaluate.pixels import RawPixels
from polygrain.evaluate.segmentation.finetune import evaluate_segment_finetune
from polygrain.evaluate.segmentation.training import pixel_loss
from polygrain.evaluate.segmentation.upernet import UPerNet
from polygrain.evaluate.settings.segmentation import SegmentFinetuneSettings
from polygrain.parts.encoder import Encoder, EncoderSettings
from tests.evaluate.segmentation.shapes import draws, write

pytest.importorskip("segmentation_models_pytorch")
TINY = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 4, "num_heads": 3}


def vit():
    return Encoder(EncoderSettings(name="vit_tiny_patch16_224", arguments=TINY))


def test_logits_come_at_the_stride_of_the_finest_map():
    torch.manual_seed(0)
    network = UPerNet(vit(), 5, channels=16, dropout=0.1).eval()
    assert network(torch.randn(2, 3, 32, 48)).shape == (2, 5, 16, 24)
    assert network.stride == 16


def test_stages_of_a_resnet_are_a_pyramid_already():
    network = UPerNet(Encoder(EncoderSettings(name="resnet18")), 5, channels=16, dropout=0.1).eval()
    assert network(torch.randn(1, 3, 64, 64)).shape == (1, 5, 16, 16)


def test_the_loss_is_that_of_both_heads():
    torch.manual_seed(0)
    network = UPerNet(vit(), 5, channels=16, dropout=0.1).eval()
    pixels, classes = torch.randn(2, 3, 32, 32), draws(2, 32, 32, classes=5)
    third = network.pyramid(pixels)[2]
    expected = pixel_loss(network(pixels), classes) + 0.4 * pixel_loss(network.auxiliary(third), classes)
    assert network.loss(pixels, classes).item() == pytest.approx(expected.item())


def test_every_weight_of_decoder_and_backbone_gets_a_gradient():
    torch.manual_seed(0)
    network = UPerNet(vit(), 5, channels=16, dropout=0.0)
    network.loss(torch.randn(2, 3, 32, 32), draws(2, 32, 32, classes=5)).backward()
    without = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert [name for name in without if "cls_token" not in name] == []


def test_colours_are_learnt_and_the_backbone_handed_in_stays_as_it_was(tmp_path):
    train, val = write(tmp_path / "train", 8), write(tmp_path / "val", 4, seed=1)
    torch.manual_seed(0)
    encoder = vit()
    before = weights_sha256(encoder)
    settings = SegmentFinetuneSettings(
        size=32, crop=32, steps=40, images_per_step=4, channels=16, learning_rate=3e-3, drop_path=0.0, dropout=0.0,
        workers=0,
    )  # fmt: skip
    result = evaluate_segment_finetune(encoder, train, val, settings=settings)
    assert result.scores["UPerNet"]["miou"] > result.facts["constant_miou"] + 0.3
    assert weights_sha256(encoder) == before
    assert result.model["levels"] == [0, 1, 2, 3]


def test_the_same_seed_gives_the_same_number(tmp_path):
    train = write(tmp_path / "train", 4)
    settings = SegmentFinetuneSettings(size=32, steps=2, images_per_step=2, channels=8, workers=0)
    assert evaluate_segment_finetune(vit_of_seed(), train, train, settings=settings) == evaluate_segment_finetune(
        vit_of_seed(), train, train, settings=settings
    )


def vit_of_seed():
    torch.manual_seed(3)
    return vit()


def test_a_damaged_backbone_is_said_with_the_image(tmp_path):
    encoder = vit_of_seed()
    torch.nn.init.constant_(encoder.model.blocks[0].mlp.fc1.weight, torch.nan)
    train = write(tmp_path / "train", 4)
    settings = SegmentFinetuneSettings(size=32, steps=1, images_per_step=2, channels=8, workers=0)
    with pytest.raises(ValueError, match=r"the encoder's features of 'images/00\d.png' are not finite"):
        evaluate_segment_finetune(encoder, train, train, settings=settings)


def test_raw_pixels_cannot_be_fine_tuned(tmp_path):
    with pytest.raises(ValueError, match="no weights to fine-tune"):
        evaluate_segment_finetune(RawPixels(), tmp_path, tmp_path)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch.decoders.upernet.decoder", None)
    with pytest.raises(ValueError, match=r"pip install 'polygrain\[segmentation\]'"):
        UPerNet(vit(), 5, channels=16, dropout=0.1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"images_per_step": 1}, "images_per_step is 1"),
        ({"layer_decay": 0.0}, "layer_decay is 0.0"),
        ({"drop_path": 1.0}, "drop_path is 1.0"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"window": 64, "stride": 65}, "stride is 65"),
    ],
)
def test_settings_that_cannot_work_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        SegmentFinetuneSettings(**wrong)
