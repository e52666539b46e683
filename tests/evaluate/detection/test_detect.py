import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn

from polygrain.commands.evaluate import evaluate
from polygrain.data.coco import CocoImages
from polygrain.data.photometric import IMAGENET
from polygrain.evaluate.detection import protocol
from polygrain.evaluate.detection.cascade import STAGES, box_loss
from polygrain.evaluate.detection.detector import build_detector, shown_at, with_drop_path
from polygrain.evaluate.detection.examples import Examples, batches
from polygrain.evaluate.detection.protocol import evaluate_detect, standing_in
from polygrain.evaluate.detection.training import backward, falling, train
from polygrain.evaluate.models import open_model
from polygrain.evaluate.settings.detection import PRESETS, DetectSettings
from polygrain.parts.encoder import Encoder, EncoderSettings
from tests.evaluate.detection import rectangles

TINY = dataclasses.replace(
    PRESETS["quick"],
    images_per_step=2,
    warmup_steps=2,
    short_sides=(64, 80),
    test_side=64,
    longest=96,
    channels=16,
    hidden=32,
    proposals=60,
    samples=32,
)


def vit() -> Encoder:
    torch.manual_seed(0)
    arguments = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 4, "num_heads": 2}
    return Encoder(EncoderSettings(name="vit_tiny_patch16_224", arguments=arguments))


def detector(encoder: Encoder, kind: str, pyramid: str = "taps", classes: int = 2) -> nn.Module:
    return build_detector(encoder, detector=kind, pyramid=pyramid, classes=classes, normalisation=IMAGENET, recipe=TINY)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rectangles")
    return rectangles.write(folder / "train", 12), rectangles.write(folder / "val", 3, seed=1)


@pytest.fixture(scope="module")
def images(made):
    return CocoImages(*made[0])


@pytest.mark.parametrize("kind", ["mask", "cascade"])
def test_the_loss_falls_in_twenty_steps(images, kind):
    encoder = vit()
    torch.manual_seed(0)
    model = detector(encoder, kind)
    loader = batches(Examples(images, crop=False, seed=0), range(12), steps=20, images_per_step=2, workers=0)
    history = train(model, encoder, loader, TINY, steps=20, device="cpu")
    assert len(history) == 20
    assert np.mean(history[-5:]) < 0.85 * np.mean(history[:3])


def of_one_size(count):
    """Images of one size with two objects each: the detector draws the same number of boxes from each."""
    random = torch.Generator().manual_seed(1)
    found = []
    for _ in range(count):
        starts = torch.randint(0, 30, (2, 2), generator=random).float()
        boxes = torch.cat([starts, starts + torch.randint(20, 34, (2, 2), generator=random)], 1)
        masks = torch.zeros(2, 64, 64, dtype=torch.uint8)
        for mask, (left, top, right, bottom) in zip(masks, boxes.int().tolist(), strict=True):
            mask[top:bottom, left:right] = 1
        target = {"boxes": boxes, "labels": torch.tensor([1, 2]), "masks": masks}
        found.append((torch.rand(3, 64, 64, generator=random), target))
    return found


def gradients(recipe, batch, at_once):
    """Of a detector without BatchNorm, which draws the first boxes and not any."""
    torch.manual_seed(0)
    model = build_detector(
        vit(), detector="mask", pyramid="last", classes=2, normalisation=IMAGENET, recipe=recipe
    ).train()
    losses = backward(model, batch, at_once=at_once, device="cpu")
    return losses, {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_images_in_pieces_give_the_gradients_of_all_at_once(monkeypatch, at_once):
    monkeypatch.setattr(torch, "randperm", lambda count, device=None: torch.arange(count, device=device))
    recipe = dataclasses.replace(TINY, short_sides=(64,), samples=8)
    batch = of_one_size(4)
    (losses, whole), (in_pieces, summed) = (gradients(recipe, batch, count) for count in (4, at_once))
    assert in_pieces == pytest.approx(losses, rel=1e-4)
    for name, gradient in whole.items():
        torch.testing.assert_close(summed[name], gradient, rtol=1e-3, atol=1e-5, msg=name)


def test_no_more_images_go_through_the_detector_at_once_than_the_recipe_says(images):
    encoder = vit()
    model = detector(encoder, "mask")
    seen = []
    model.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    loader = batches(Examples(images, crop=False, seed=0), range(12), steps=2, images_per_step=5, workers=0)
    train(model, encoder, loader, dataclasses.replace(TINY, images_at_once=2), steps=2, device="cpu")
    assert seen == [2, 2, 1, 2, 2, 1]


def test_every_parameter_of_a_cascade_gets_a_gradient_but_the_final_norm_which_no_pyramid_has(images):
    torch.manual_seed(0)
    model = detector(vit(), "cascade", pyramid="last").train()
    pixels, target = Examples(images, crop=False, seed=0)[0, 0]
    sum(model([pixels], [target]).values()).backward()
    spared = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert spared == [f"backbone.pyramid.encoder.model.norm.{name}" for name in ("weight", "bias")]


def test_each_stage_of_a_cascade_weighs_less(images):
    torch.manual_seed(0)
    model = detector(vit(), "cascade").train()
    for heads in model.roi_heads.stages:
        nn.init.zeros_(heads.box_predictor.cls_score.weight)
        nn.init.zeros_(heads.box_predictor.cls_score.bias)
    pixels, target = Examples(images, crop=False, seed=0)[0, 0]
    losses = model([pixels], [target])
    found = [losses[f"stage{i}_classes"].item() for i in (1, 2, 3)]
    assert found == pytest.approx([weight * math.log(3) for weight in (1, 0.5, 0.25)], rel=1e-5)


def test_the_box_loss_is_ten_times_the_mean_of_giou():
    heads = detector(vit(), "cascade").roi_heads.stages[0]
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 4, 4]])
    truth = torch.tensor([[0.0, 0, 10, 10], [5, 0, 15, 10], [0, 0, 9, 9]])
    labels = torch.tensor([1, 2, 0])  # the last is background and counts in the denominator alone
    loss = box_loss(heads, torch.zeros(3, 12), [boxes], [labels], [truth])
    giou = 50 / 150 - (150 - 150) / 150  # their hull is their union
    assert loss.item() == pytest.approx(10 * ((1 - 1) + (1 - giou)) / 3, rel=1e-5)


def test_offsets_of_each_stage_are_divided_by_its_deviations():
    stages = detector(vit(), "cascade").roi_heads.stages
    box = torch.tensor([[0.0, 0, 10, 20]])
    for heads, stage in zip(stages, STAGES, strict=True):
        moved = heads.box_coder.decode_single(torch.tensor([[1.0, 0, 0, 0]]), box)
        assert moved[0, 0].item() == pytest.approx(10 * stage.deviation[0])


def test_a_cascade_averages_logits_and_keeps_boxes_without_offsets():
    heads = detector(vit(), "cascade").roi_heads.eval()
    logits = torch.tensor([[0.0, 1, 3], [0, 2, 2], [0, 0, 4]])  # of background and two classes, by stage
    for one, values in zip(heads.stages, logits, strict=True):
        for layer in (one.box_predictor.cls_score, one.box_predictor.bbox_pred):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        one.box_predictor.cls_score.bias.data = values
    maps = {str(i): torch.randn(1, 16, 32 >> i, 32 >> i) for i in range(4)}
    boxes = torch.tensor([[2.0, 3, 20, 25], [30, 32, 60, 64]])
    with torch.no_grad():
        (found,), losses = heads(maps, [boxes], [(64, 64)])
    chance = logits.mean(0).softmax(0)
    for label in (1, 2):
        of_it = found["labels"] == label
        assert sorted(found["boxes"][of_it].tolist()) == boxes.tolist()
        assert found["scores"][of_it].tolist() == pytest.approx([chance[label].item()] * 2)
    assert found["masks"].shape == (4, 1, 28, 28) and not losses


class Whole(nn.Module):
    """Finds the whole image, once."""

    def forward(self, features, proposals, shapes, targets=None):
        high, wide = shapes[0]
        found = {
            "boxes": torch.tensor([[0.0, 0, wide, high]]),
            "labels": torch.tensor([1]),
            "scores": torch.ones(1),
            "masks": torch.ones(1, 1, 28, 28),
        }
        return [found], {}


@pytest.mark.parametrize("size", [(50, 90), (97, 64), (30, 31)])
def test_boxes_and_masks_come_back_in_the_size_of_the_image(size):
    model = detector(vit(), "mask").eval()
    model.roi_heads = Whole()
    shown_at(model, 48)
    with torch.no_grad():
        (found,) = model([torch.rand(3, *size)])
    assert found["boxes"].tolist()[0] == pytest.approx([0, 0, size[1], size[0]])
    assert found["masks"].shape == (1, 1, *size)
    assert (found["masks"][:, :, 2:-2, 2:-2] > 0.5).all()


def test_anchors_are_eight_cells_wide_on_five_levels():
    model = detector(vit(), "mask")
    assert model.backbone.pyramid.strides == (2, 4, 8, 16)
    assert model.rpn.anchor_generator.sizes == ((16,), (32,), (64,), (128,), (256,))


@pytest.mark.parametrize("kind", ["mask", "cascade"])
def test_boxes_are_pooled_at_their_place_after_a_narrow_first_image(kind):
    """Maps that tell the place of each cell; the padded height of the first image is twice its own and more."""
    model = detector(vit(), kind)
    heads = model.roi_heads if kind == "mask" else model.roi_heads.stages[0]
    for side, pool in ((7, heads.box_roi_pool), (14, heads.mask_roi_pool)):
        for high, wide in ((20, 96), (96, 96)):
            rows = [-(-high // 32) * 32 // stride for stride in (2, 4, 8, 16)]
            down = [(torch.arange(r) + 0.5) * 2 * 2**i for i, r in enumerate(rows)]  # px of each cell's middle
            maps = {str(i): d[None, None, :, None].expand(1, 1, -1, 96 // (2 << i)) for i, d in enumerate(down)}
            box = torch.tensor([[8.0, 4, 16, 12]])
            found = pool({k: m.contiguous() for k, m in maps.items()}, [box], [(high, wide)])[0, 0, :, 0]
            expected = 4 + 8 * (torch.arange(side) + 0.5) / side + 1  # torchvision's are shifted by half a cell of 2 px
            torch.testing.assert_close(found, expected, rtol=0, atol=0.3)


@pytest.mark.parametrize("pyramid", ["taps", "last"])
def test_both_pyramids_give_five_levels_each_half_the_one_before(pyramid):
    maps = detector(vit(), "mask", pyramid=pyramid).backbone(torch.randn(1, 3, 64, 96))
    assert {name: tuple(level.shape) for name, level in maps.items()} == {
        str(i): (1, TINY.channels, 32 >> i, 48 >> i) for i in range(5)
    }


def test_drop_path_grows_over_the_blocks_and_weights_stay():
    encoder = vit()
    dropping = with_drop_path(encoder, 0.3)
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in dropping.model.blocks]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3])
    pixels = torch.randn(1, 3, 32, 32)
    for one in (encoder, dropping):
        one.eval()
    assert torch.equal(encoder.features(pixels).pooled, dropping.features(pixels).pooled)


def test_squares_of_jitter_are_not_resized_again():
    recipe = PRESETS["lsj"]
    model = build_detector(
        vit(),
        detector="mask",
        pyramid="last",
        classes=2,
        normalisation=IMAGENET,
        recipe=dataclasses.replace(TINY, short_sides=recipe.short_sides, longest=recipe.longest),
    )
    pixels = torch.rand(3, 1024, 1024)
    shown, targets = model.transform([pixels], [{"boxes": torch.tensor([[1.0, 2, 3, 4]])}])
    assert targets[0]["boxes"].tolist() == [[1, 2, 3, 4]]
    torch.testing.assert_close(shown.tensors[0], model.transform.normalize(pixels))


def test_the_learning_rate_warms_up_and_drops_twice():
    factor = falling(120, warmup_steps=10, drops=(8 / 12, 11 / 12))
    assert factor(0) == pytest.approx(0.001)
    assert [factor(step) for step in (10, 79, 80, 109, 110)] == pytest.approx([1, 1, 0.1, 0.1, 0.01])


def test_the_jitter_of_a_recipe_reaches_the_training_images(monkeypatch, images):
    shown = []

    def look(model, encoder, loader, *given, **named):
        shown.extend(next(iter(loader)))
        return []

    monkeypatch.setattr(protocol, "train", look)
    monkeypatch.setitem(PRESETS, "lsj", dataclasses.replace(TINY, jitter=96))
    protocol.fine_tuned(open_model(vit()), images, range(12), DetectSettings(preset="lsj", steps=1, workers=0))
    assert [tuple(pixels.shape) for pixels, _ in shown] == [(3, 96, 96)] * 2


def quick(made, **given):
    train_set, val = made
    settings = DetectSettings(workers=0, images_per_step=2, test_side=64, **{"steps": 1, **given})
    return evaluate_detect(vit(), train_set.images, val.images, train_set.annotations, val.annotations, settings)


def test_the_same_seed_gives_the_same_number_and_the_encoder_stays_as_it_was(made):
    first, second = quick(made), quick(made)
    assert first.details["loss"] == second.details["loss"]
    assert first.scores == second.scores and first.fingerprint == second.fingerprint
    assert first.model == second.model
    assert 0 <= first.scores["boxes"]["AP"] <= 1


def test_an_out_that_cannot_be_written_is_refused_before_any_training(made, tmp_path, monkeypatch):
    monkeypatch.setattr(protocol, "fine_tuned", lambda *_: pytest.fail("training began"))
    (tmp_path / "file").touch()
    for out, told in (("file/found.json", "folder of .* is not there"), (".", "is a folder; name a file in it")):
        with pytest.raises(ValueError, match=told):
            quick(made, out=str(tmp_path / out))


def test_test_images_that_are_training_images_are_counted_aloud(made):
    train_set, val = made
    assert standing_in(CocoImages(*val), CocoImages(*train_set)) == 0
    assert "3 of 3 test images are among the training images, byte for byte" in quick((val, val)).notes


def test_other_categories_in_the_test_are_refused(made, tmp_path):
    train_set, val = made
    other = tmp_path / "other.json"
    other.write_text(
        val.annotations.read_text()
        .replace('"id": 8, "name"', '"id": 9, "name"')
        .replace('"category_id": 8', '"category_id": 9')
    )
    with pytest.raises(ValueError, match="same categories; only one of them has category 8"):
        evaluate_detect(vit(), train_set.images, val.images, train_set.annotations, other)


def test_raw_pixels_are_refused(made):
    train_set, val = made
    with pytest.raises(ValueError, match="raw pixels have no layers to fine-tune"):
        evaluate_detect("pixels", train_set.images, val.images, train_set.annotations, val.annotations)


def test_the_command_line_knows_the_protocol(capsys):
    with pytest.raises(SystemExit):
        evaluate(["detect", "--help"])
    told = capsys.readouterr().out
    assert "--data-annotations" in told and "--detector" in told
