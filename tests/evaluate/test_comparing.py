"""Models side by side."""

import json

import numpy as np
import pytest

from polygrain.cli import main
from polygrain.data.photometric import Normalisation
from polygrain.evaluate import suites
from polygrain.evaluate.comparing import Comparison, Difference, compare, not_paired
from polygrain.evaluate.result import Result
from polygrain.evaluate.sampling import Sample
from polygrain.evaluate.settings.comparing import CompareSettings
from polygrain.parts.encoder import Encoder, EncoderSettings
from polygrain.weights.backbone import save_backbone
from tests.evaluate.fakes import Coloured
from tests.evaluate.segmentation.shapes import write


@pytest.mark.parametrize(
    ("low", "high", "verdict"), [(0.01, 0.1, "better"), (-0.2, -0.1, "worse"), (-0.1, 0.1, "no c")]
)
def test_the_verdict_follows_the_interval(low, high, verdict):
    assert Difference("a", "knn", (low + high) / 2, low, high).verdict.startswith(verdict)


def result(fingerprinted, share):
    return Result(
        protocol="knn",
        description="",
        scores={"k=20": {"top1": share}},
        facts={"k": fingerprinted},
        model={},
        details={},
        items={"k=20": Sample(np.ones(4))},
    )


def test_two_fingerprints_never_stand_in_one_line():
    one, other = result(1, 0.25), result(2, 0.75)
    table = Comparison(results={"a": [one], "b": [other]}, differences=[]).table()
    assert [line.split() for line in table.splitlines()[:3]] == [
        ["protocol", "a", "b"],
        ["knn", "k=20", one.fingerprint, "25.00%"],
        ["knn", "k=20", other.fingerprint, "75.00%"],
    ]


def test_one_fingerprint_stands_in_one_line():
    table = Comparison(results={"a": [result(1, 0.25)], "b": [result(1, 0.75)]}, differences=[]).table()
    assert table.splitlines()[1].split()[-2:] == ["25.00%", "75.00%"]


def test_a_model_is_compared_with_the_first_on_the_same_images():
    images = Coloured([0, 1, 2, 3] * 8, size=32)
    settings = CompareSettings(size=32, test_share=0.25, workers=0, cache="none")
    found = compare(["pixels", "random:vit_mini_64"], images, settings=settings)
    assert [d.model for d in found.differences] == ["random:vit_mini_64"] * 2
    one, other = (found.results[name][0] for name in ("pixels", "random:vit_mini_64"))
    assert one.fingerprint == other.fingerprint
    assert found.differences[0].mean == pytest.approx(other.scores["k=20"]["top1"] - one.scores["k=20"]["top1"])
    assert json.loads(found.json())["differences"][0]["verdict"] == found.differences[0].verdict


@pytest.fixture
def halves(tmp_path):
    """A backbone that takes numbers from -1 to 1."""
    encoder = Encoder(EncoderSettings(name="vit_mini_64", arguments={"depth": 1}))
    save_backbone(tmp_path / "halves.safetensors", encoder, normalisation=Normalisation((0.5,) * 3, (0.5,) * 3))
    return str(tmp_path / "halves.safetensors")


def protocols(*runs):
    return suites.Suite(runs, suites.trained_at)


def test_models_that_are_normalised_differently_are_compared(halves, tmp_path, monkeypatch):
    monkeypatch.setitem(suites.SUITES, "quick", protocols(suites.knn, suites.correspond, suites.unlabelled))
    options = {"size": 32, "workers": 0}
    images = Coloured([0, 1, 2, 3] * 25, size=32)
    found = compare(["random:vit_mini_64", halves], images, settings=CompareSettings(**options, cache="none"))
    masked = compare(
        ["random:vit_mini_64", halves],
        str(write(tmp_path / "train", 10)),
        str(write(tmp_path / "val", 6, seed=1)),
        settings=CompareSettings(**options, suite="segmentation"),
    )
    for one in (*found.results[halves], *masked.results[halves]):
        assert one.model["normalisation"] == {"mean": [0.5] * 3, "std": [0.5] * 3}
    measures = {difference.measure.split(":")[0] for difference in (*found.differences, *masked.differences)}
    assert measures >= {"knn k=20", "correspond crops", "unlabelled region", "segment_linear linear"}
    assert not any("no verdict" in note for note in (*found.notes, *masked.notes))


def test_another_grid_of_patches_is_another_protocol_for_patches_alone(monkeypatch):
    """8 x 8 patches against 2 x 2: where 1 of 4 is right by chance, more are found whatever the features."""
    monkeypatch.setitem(suites.SUITES, "quick", protocols(suites.correspond, suites.unlabelled))
    images = Coloured([0, 1, 2, 3] * 25, size=64)
    found = compare(
        ["random:vit_mini_64", "random:resnet10t"],
        images,
        settings=CompareSettings(size=64, workers=0, cache="none"),
    )
    measures = {difference.measure for difference in found.differences}
    assert measures == {"unlabelled instance: crop finds its image", "unlabelled neighbourhood: neighbours stay"}
    told = "random:resnet10t against random:vit_mini_64, correspond crops: no verdict, the protocols differ in grid "
    assert f"{told}([2, 2] against [8, 8])" in found.notes
    lines = [line for line in found.table().splitlines() if line.strip().startswith("correspond crops")]
    assert len(lines) == 2
    assert "(chance 25.0%)" in lines[1]


def test_why_two_results_have_no_verdict_is_told():
    assert not_paired(result(1, 0.25), result(2, 0.75)) == [
        "knn k=20: no verdict, the protocols differ in k (2 against 1)"
    ]
    assert not_paired(result(1, 0.25), result(1, 0.75)) == []


def test_too_few_images_for_the_last_protocol_are_told_before_the_first(capsys):
    """A fifth of 40 images is 8, and the measures without labels need 20."""
    models = ["pixels", "random:vit_mini_64"]
    assert main(["compare", *models, "--data", "scenes:40:32", "--suite", "full", "--workers", "0"]) == 2
    told = "15 images to test on, and the suite full needs 20 or more; use a larger --test-share, --val"
    assert told in capsys.readouterr().err


def test_models_may_stand_behind_options_and_the_data_keep_their_name(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(suites.SUITES, "quick", protocols(suites.knn))
    options = ["--data", "scenes:45:32", "--workers", "0", "--json", str(tmp_path / "found.json")]
    words = ["--cache=none", "--size", "32", "random:vit_mini_64"]
    assert main(["compare", *options, "pixels", *words]) == 0
    found = json.loads((tmp_path / "found.json").read_text())["results"]
    assert [*found] == ["pixels", "random:vit_mini_64"]
    details = found["pixels"][0]["details"]
    assert (details["data"], details["val"]) == (
        "30 of the 45 images of scenes:45:32",
        "15 of the 45 images of scenes:45:32",
    )
    capsys.readouterr()


def test_one_model_is_no_comparison(capsys, tmp_path):
    assert main(["compare", "pixels", "--data", str(tmp_path)]) == 2
    assert "give two or more" in capsys.readouterr().err


def test_segmentation_is_compared_scene_by_scene(tmp_path, capsys):
    train, val = write(tmp_path / "train", 10), write(tmp_path / "val", 6, seed=1)
    models = ["random:vit_mini_64", "pixels"]
    options = ["--suite", "segmentation", "--data", str(train), "--val", str(val), "--size", "32", "--workers", "0"]
    assert main(["compare", *models, *options, "--json", str(tmp_path / "found.json")]) == 0
    told = json.loads((tmp_path / "found.json").read_text())
    for found, place in zip(told["differences"], (0, 1), strict=True):
        one, other = (told["results"][model][place]["scores"] for model in models)
        row = "linear" if place == 0 else "chosen"
        assert found["mean"] == pytest.approx(other[row]["miou"] - one[row]["miou"])
        assert found["low"] <= found["mean"] <= found["high"]
    assert "pixels against random:vit_mini_64, segment_linear linear: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--suite", "segmentation", "--readout", "mean"], "readout is mean; the suite segmentation prepares images"),
        (
            ["--suite", "segmentation", "--test-share", "0.5"],
            "test_share is 0.5; the suite segmentation prepares images",
        ),
        (["--val", "scenes:8:32", "--test-share", "0.5"], "test_share is 0.5, and --val has the images to test on"),
        (["--split", "splits.json"], "split is 'splits.json', which the suite quick does not take"),
    ],
)
def test_an_option_that_a_suite_does_not_take_is_refused(options, told, tmp_path, capsys):
    assert main(["compare", "pixels", "random:vit_mini_64", "--data", str(tmp_path), *options]) == 2
    assert told in capsys.readouterr().err
