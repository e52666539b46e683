"""Models side by side."""

import json

import numpy as np
import pytest

from polygrain.cli import main
from polygrain.evaluate.comparing import Comparison, Difference, compare
from polygrain.evaluate.result import Result
from polygrain.evaluate.sampling import Sample
from polygrain.evaluate.settings.comparing import CompareSettings
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
