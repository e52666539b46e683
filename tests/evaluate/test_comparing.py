"""Models side by side."""

import json

import numpy as np
import pytest

from polygrain.cli import main
from polygrain.evaluate.comparing import Comparison, Difference, compare, paired_interval
from polygrain.evaluate.result import Result
from polygrain.evaluate.settings.comparing import CompareSettings
from tests.evaluate.fakes import Coloured


def test_a_paired_interval_is_the_normal_one_for_many_pairs():
    """Mean and 1.96 standard errors of the differences, by the central limit theorem."""
    random = np.random.default_rng(0)
    differences = random.choice([-1.0, 0.0, 1.0], size=20_000, p=[0.1, 0.7, 0.2])
    mean, low, high = paired_interval(differences)
    error = differences.std() / np.sqrt(len(differences))
    assert mean == pytest.approx(differences.mean())
    assert low == pytest.approx(mean - 1.96 * error, abs=0.2 * error)
    assert high == pytest.approx(mean + 1.96 * error, abs=0.2 * error)


def test_pairs_that_always_agree_leave_no_doubt():
    assert paired_interval(np.zeros(50)) == (0, 0, 0)


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
        items={"k=20": np.ones(4)},
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
