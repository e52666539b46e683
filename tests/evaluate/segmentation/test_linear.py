import json

import numpy as np
import pytest
import torch

from polygrain.cli import main
from polygrain.data.photometric import IMAGENET
from polygrain.evaluate.pixels import RawPixels
from polygrain.evaluate.segmentation.linear import evaluate_segment_linear
from polygrain.evaluate.segmentation.running import Look, held_out, segment_set, size_of, usual_size
from polygrain.evaluate.segmentation.sets import open_sets
from polygrain.evaluate.settings.segmentation import SegmentLinearSettings
from polygrain.parts.encoder import Encoder, EncoderSettings
from tests.evaluate.segmentation.shapes import write

NAMES = {"classes": ["ground", "red", "green", "blue"]}
QUICK = {"steps": 60, "images_per_step": 8, "size": 32, "workers": 0}


def pixels():
    return RawPixels(patch_size=4, image_size=32)


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    root = tmp_path_factory.mktemp("shapes")
    return write(root / "train", 24, told=NAMES), write(root / "val", 12, seed=1, told=NAMES)


def test_colours_are_segmented_and_the_protocol_is_spelt_out(sets):
    result = evaluate_segment_linear(pixels(), *sets, settings=SegmentLinearSettings(**QUICK))
    scores = result.scores["linear"]
    assert scores["miou"] > 0.9
    assert scores["miou_low"] <= scores["miou"] <= scores["miou_high"]
    assert scores["miou_oracle"] == max(result.details["test_miou"].values())
    assert scores["miou_held_out"] == max(result.details["held_out_miou"].values())
    spelt = json.loads(result.json())
    assert spelt["facts"]["recipe"]["steps"] == 60
    assert spelt["facts"]["preprocessing"]["resize"].startswith("short side to 32 px")
    assert spelt["facts"]["preprocessing"]["resize"].endswith("bilinear, antialiased")
    assert list(spelt["details"]["iou"]) == NAMES["classes"]
    assert np.mean(list(spelt["details"]["iou"].values())) == pytest.approx(scores["miou"])
    assert "24 to train" in result.table()


def test_masks_of_other_images_teach_no_more_than_the_largest_class(tmp_path):
    train, val = write(tmp_path / "train", 24, permuted=True), write(tmp_path / "val", 12, seed=1, permuted=True)
    settings = SegmentLinearSettings(**QUICK, learning_rates=(1e-3,))
    result = evaluate_segment_linear(pixels(), train, val, settings=settings)
    assert result.scores["linear"]["pixel_accuracy"] == pytest.approx(result.facts["largest_class"], abs=0.1)
    assert result.scores["linear"]["miou"] < result.facts["constant_miou"] + 0.1


def test_the_same_seed_gives_the_same_number(sets):
    settings = SegmentLinearSettings(**QUICK | {"steps": 5})
    first, second = (evaluate_segment_linear(pixels(), *sets, settings=settings) for _ in range(2))
    assert first == second


def test_crops_teach_pixel_by_pixel_and_windows_segment(sets):
    settings = SegmentLinearSettings(
        preset="dinov3", steps=40, images_per_step=4, size=32, crop=32, window=24, stride=16, dropout=0.0,
        learning_rates=(0.03,), workers=0,
    )  # fmt: skip
    result = evaluate_segment_linear(pixels(), *sets, settings=settings)
    assert result.scores["linear"]["miou"] > 0.7
    assert "miou_oracle" not in result.scores["linear"]
    assert "windows of 24 px, stride 16" in result.description


def test_constant_features_are_said_aloud(sets):
    encoder = Encoder(EncoderSettings(name="resnet18"))
    torch.nn.init.zeros_(encoder.model.layer4[1].bn2.weight)
    for part in encoder.model.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            torch.nn.init.zeros_(part.weight)
    settings = SegmentLinearSettings(**QUICK | {"steps": 20}, learning_rates=(1e-2,))
    result = evaluate_segment_linear(encoder, *sets, settings=settings)
    assert any("every pixel got the same class" in note for note in result.notes)
    assert result.scores["linear"]["miou"] == pytest.approx(result.facts["constant_miou"])


def test_the_test_set_does_not_choose(sets, tmp_path):
    settings = SegmentLinearSettings(**QUICK | {"steps": 5})
    chosen = {
        evaluate_segment_linear(pixels(), sets[0], val, settings=settings).details["learning_rate"]
        for val in (sets[1], write(tmp_path / "other", 3, seed=9, permuted=True))
    }
    assert len(chosen) == 1


def test_held_out_images_are_a_share_of_their_own():
    trains, chooses = held_out(30, 0.1, 0)
    assert len(chooses) == 3
    assert sorted(trains + chooses) == list(range(30))
    assert held_out(30, 0.1, 1)[1] != chooses
    with pytest.raises(ValueError, match="leaves 0 to choose by"):
        held_out(4, 0.1, 0)


def damaged():
    torch.manual_seed(0)
    encoder = Encoder(EncoderSettings(name="resnet18"))
    torch.nn.init.constant_(encoder.model.conv1.weight, torch.nan)
    return encoder


@pytest.mark.parametrize("more", [{}, {"preset": "vicregl_convnext_voc", "crop": 32}])
def test_a_damaged_backbone_is_said_with_the_image(sets, more):
    settings = SegmentLinearSettings(**QUICK | {"steps": 1, "images_per_step": 2}, **more)
    with pytest.raises(ValueError, match=r"the encoder's features of 'images/0\d\d.png' are not finite"):
        evaluate_segment_linear(damaged(), *sets, settings=settings)


def test_no_class_is_chosen_from_an_answer_that_is_no_number(sets):
    truth = open_sets(*sets, None, 3, SegmentLinearSettings()).val
    look = Look(IMAGENET, 32, 0, 1, 0, "cpu")

    def answer(pixels):
        logits = torch.zeros(1, 4, 8, 8)
        logits[0, 2, 3, 3] = torch.nan
        return logits

    with pytest.raises(ValueError, match=r"the answer for 'images/000.png' is not finite"):
        segment_set(answer, 4, truth, 4, look)


def test_a_size_below_a_cell_of_the_backbone_is_refused():
    assert [size_of(size, 16) for size in (16, 40, None)] == [16, 40, 512]
    with pytest.raises(ValueError, match="size is 15; this backbone has cells of 16 px, so it must be 16 or more"):
        size_of(15, 16)


def test_the_usual_size_is_32_cells():
    assert [usual_size(stride) for stride in (8, 16, 32)] == [256, 512, 512]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"classes": 1}, "classes is 1"),
        ({"held_out": 1.0}, "held_out is 1.0"),
        ({"learning_rates": ()}, "learning_rates are empty"),
        ({"learning_rates": (0.0,)}, "learning_rates"),
        ({"steps": 0}, "steps is 0"),
        ({"crop": 64}, "crop is 64, and preset quick"),
        ({"window": 32, "stride": 40}, "stride is 40; with windows of 32 px"),
        ({"output_stride": 32}, "output_stride is 32"),
        ({"preset": "dinov3", "dropout": 1.0}, "dropout is 1.0"),
    ],
)
def test_settings_that_cannot_work_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        SegmentLinearSettings(**wrong)


def test_the_command_line_runs_it_and_complains_in_one_line(sets, tmp_path, capsys):
    train, val = map(str, sets)
    arguments = [
        "evaluate",
        "segment_linear",
        "pixels",
        "--data",
        train,
        "--size",
        "32",
        "--steps",
        "5",
        "--workers",
        "0",
    ]
    assert main([*arguments, "--val", val, "--json", str(tmp_path / "r.json")]) in (None, 0)
    assert "mIoU" in capsys.readouterr().out
    assert json.loads((tmp_path / "r.json").read_text())["protocol"] == "segment_linear"
    assert main(arguments) == 2
    assert (
        capsys.readouterr().err.strip().endswith("give --val, or --split with the names to train on and to validate on")
    )
