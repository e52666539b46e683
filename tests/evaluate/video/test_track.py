import json

import numpy as np
import pytest
from PIL import Image

from polygrain.cli import main
from polygrain.data.davis import palette
from polygrain.evaluate.settings.video import TrackSettings
from polygrain.evaluate.video import track
from polygrain.evaluate.video.track import evaluate_track
from polygrain.parts.encoder import Encoder, EncoderSettings
from tests.evaluate.video.discs import Alike, Colours, Noise, write_davis

SMALL = {"size": 96, "device": "cpu"}


@pytest.fixture(scope="module")
def davis(tmp_path_factory):
    return write_davis(tmp_path_factory.mktemp("davis"))


def score(model, data, **options):
    return evaluate_track(model, data, TrackSettings(**{**SMALL, **options}))


def test_colours_follow_moving_discs_as_far_as_patches_can_tell(davis):
    fine, coarse = (score(Colours(patch_size=patch), davis).scores["all"]["J&F"] for patch in (4, 16))
    assert fine > 0.8
    assert coarse < fine - 0.2


def test_a_still_video_keeps_its_masks_up_to_the_grid(tmp_path):
    found = score(Colours(patch_size=4), write_davis(tmp_path, step=0))
    assert found.scores["all"]["J_mean"] > 0.85
    assert abs(found.scores["all"]["J_decay"]) < 0.02


def test_random_features_lose_the_objects(davis):
    assert score(Noise(patch_size=4), davis).scores["all"]["J&F"] < 0.3


def test_features_that_are_all_alike_are_said_to_be_so(davis):
    found = score(Alike(patch_size=4), davis)
    assert any("features of all patches" in note for note in found.notes)
    assert 0 <= found.scores["all"]["J&F"] < 0.3


def test_the_same_seed_gives_the_same_numbers_and_masks(davis):
    model = Encoder(EncoderSettings(name="vit_mini_64", arguments={"depth": 1}))
    first, second = (score(model, davis) for _ in range(2))
    assert first.scores == second.scores
    assert first.details["masks_digest"] == second.details["masks_digest"]


def test_written_masks_score_the_same_without_a_model(davis, tmp_path):
    predicted = score(Colours(patch_size=4), davis, out=str(tmp_path / "out"))
    again = evaluate_track(f"predictions:{tmp_path / 'out'}", davis)
    assert again.scores == predicted.scores
    assert again.details["masks_digest"] == predicted.details["masks_digest"]
    assert again.fingerprint != predicted.fingerprint  # masks from anywhere are no label propagation


def test_an_out_that_cannot_be_written_is_refused_before_any_video_is_read(davis, tmp_path, monkeypatch):
    monkeypatch.setattr(track, "follow", lambda *_: pytest.fail("a video was read"))
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"nothing can be written into .*Not a directory"):
        score(Colours(patch_size=4), davis, out=str(tmp_path / "file" / "masks"))


def test_written_masks_are_indexed_png_and_the_first_is_the_true_one(davis, tmp_path):
    score(Colours(patch_size=4), davis, out=str(tmp_path))
    with (
        Image.open(tmp_path / "discs" / "00000.png") as image,
        Image.open(davis / "Annotations/480p/discs/00000.png") as true,
    ):
        assert image.mode == "P"
        assert image.getpalette()[:9] == palette()[:3].ravel().tolist()
        assert np.array_equal(np.asarray(image), np.asarray(true))


def test_a_preset_is_the_number_of_previous_frames(davis):
    dino, mugs = (score(Colours(patch_size=8), davis, preset=preset) for preset in ("dino", "mugs"))
    assert dino.facts["settings"]["previous"] == 7
    assert mugs.facts["settings"]["previous"] == 20
    assert dino.fingerprint != mugs.fingerprint
    assert dino.fingerprint == score(Colours(patch_size=8), davis, preset="mugs", previous=7).fingerprint


def test_sizes_below_480_are_called_cheap(davis):
    assert "cheaper than the protocol's 480" in score(Colours(patch_size=8), davis).description


def test_an_object_lost_between_patches_is_said_to_be_lost(tmp_path):
    root = write_davis(tmp_path)
    path = root / "Annotations/480p/discs/00000.png"
    mask = np.asarray(Image.open(path)).copy()
    mask[0, 0] = 3
    Image.fromarray(mask).save(path)
    assert any("object 3 is lost" in note for note in score(Colours(patch_size=16), root).notes)


def test_predictions_with_a_missing_mask_are_refused(davis, tmp_path):
    score(Colours(patch_size=8), davis, out=str(tmp_path))
    (tmp_path / "discs" / "00003.png").unlink()
    with pytest.raises(ValueError, match=r"lacks 1 of 4 masks of 'discs', the first is discs/00003.png"):
        evaluate_track(f"predictions:{tmp_path}", davis)


def test_predictions_of_another_size_are_refused(davis, tmp_path):
    score(Colours(patch_size=8), davis, out=str(tmp_path))
    Image.new("L", (64, 48)).save(tmp_path / "discs" / "00002.png")
    with pytest.raises(ValueError, match=r"discs/00002.png is 64x48 pixels, its ground truth 128x96"):
        evaluate_track(f"predictions:{tmp_path}", davis)


def test_frames_that_change_their_size_are_refused(tmp_path):
    root = write_davis(tmp_path)
    Image.new("RGB", (64, 48)).save(root / "JPEGImages/480p/discs/00002.jpg")
    with pytest.raises(ValueError, match=r"frame discs/00002.jpg is 64x48 pixels, the first one 128x96"):
        score(Colours(patch_size=8), root)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"neighbours": 0}, "neighbours is 0"),
        ({"window": -1}, "window is -1"),
        ({"previous": -1}, "previous is -1"),
        ({"temperature": 0.0}, "temperature is 0.0"),
    ],
)
def test_settings_that_cannot_work_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        TrackSettings(**wrong)


def test_the_command_line_tells_one_line_of_a_mistake(davis, capsys):
    assert main(["evaluate", "track", "pixels", "--data", str(davis), "--size", "90"]) == 2
    assert "not 90 px" in capsys.readouterr().err


def test_the_command_line_writes_the_result(davis, tmp_path, capsys):
    out = tmp_path / "result.json"
    assert main(["evaluate", "track", "pixels", "--data", str(davis), "--size", "96", "--json", str(out)]) == 0
    result = json.loads(out.read_text())
    assert set(result["scores"]) == {"all", "discs 1", "discs 2"}
    assert len(result["details"]["frames"]["discs 1"]["J"]) == 4
    assert "J&F" in capsys.readouterr().out
