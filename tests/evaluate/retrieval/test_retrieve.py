import json

import numpy as np
import pytest
import torch
from PIL import Image

from polygrain.cli import main
from polygrain.evaluate.pixels import RawPixels
from polygrain.evaluate.retrieval.retrieve import evaluate_retrieve
from polygrain.evaluate.settings.retrieval import RetrieveSettings
from polygrain.parts.encoder import Features
from tests.evaluate.fakes import Coloured

LABELS = [0, 1, 2, 3] * 10
SETTINGS = {"size": 16, "workers": 0, "device": "cpu", "cache": "none"}


class Vectors(RawPixels):
    """Pictures become what `made` makes of their mean colours (B, 3)."""

    def __init__(self, made):
        super().__init__()
        self.made = made

    def features(self, pixels):
        seen = super().features(pixels)
        means = (pixels * self.std + self.mean).mean((2, 3))
        return Features(self.made(means), seen.patches, seen.unnormed, seen.grid)


def noise(means):
    random = torch.Generator().manual_seed(int(1e6 * means.sum()))
    return torch.randn(len(means), 16, generator=random)


def score(model, *data, **options):
    return evaluate_retrieve(model, *data, settings=RetrieveSettings(**{**SETTINGS, **options}))


def test_colours_that_tell_the_class_find_every_image_of_it():
    scores = score(Vectors(lambda means: means - 0.4), Coloured(LABELS)).scores["leave-one-out"]
    assert scores["mAP"] == pytest.approx(1.0)
    assert scores["mAP_low"] == scores["recall@1"] == pytest.approx(1.0)


def test_features_without_meaning_find_what_chance_finds():
    found = score(Vectors(noise), Coloured([0, 1, 2, 3] * 50))
    chance = found.facts["chance"]
    assert chance == pytest.approx(49 / 199)
    spread = np.sqrt(chance * (1 - chance) / 200)
    assert found.scores["leave-one-out"]["recall@1"] == pytest.approx(chance, abs=3 * spread)


def test_features_that_are_all_alike_rank_at_random_and_say_so():
    found = score(Vectors(torch.ones_like), Coloured(sorted(LABELS)))
    assert any("ranking is random" in note for note in found.notes)
    assert found.scores["leave-one-out"]["mAP"] == pytest.approx(0.25, abs=0.06)


def test_no_image_finds_itself():
    found = score(Vectors(lambda means: means - 0.4), Coloured([0, 0, 1, 1, 2]))
    assert found.about.startswith("Vectors: 5 queries in 5 images")
    assert any("1 queries that no image answers are left out" in note for note in found.notes)
    assert found.scores["leave-one-out"]["mAP"] == pytest.approx(1.0)
    assert len(found.items["leave-one-out"].values) == 4


def test_queries_that_are_copies_of_the_database_score_one():
    images = Coloured([0, 1, 2, 3, 4, 5])
    scores = score(RawPixels(), images, images).scores["queries in a database"]
    assert scores["mAP"] == scores["recall@1"] == pytest.approx(1.0)


def test_the_same_seed_gives_the_same_numbers():
    first, second = (score("random:vit_mini_64", Coloured([0, 1, 0, 1], size=64), size=64) for _ in range(2))
    assert first.scores == second.scores
    assert first.fingerprint == second.fingerprint


def test_images_that_cannot_be_decoded_are_left_out_aloud():
    found = score(RawPixels(), Coloured(LABELS, broken_at=(3,)))
    assert len(found.items["leave-one-out"].values) == 39
    assert any("1 images of the database cannot be decoded" in note for note in found.notes)


@pytest.mark.parametrize(
    ("labels", "message"),
    [([0, 0, 0], "same class"), ([0, 1, 2], "each class needs two images"), ([-1, -1], "no labels")],
)
def test_labels_that_leave_nothing_to_find_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        score(RawPixels(), Coloured(labels))


def test_vectors_of_several_scales_are_averaged():
    sizes = []

    def shown(means):
        return means - 0.4 if sizes[-1] == 32 else torch.zeros_like(means)

    class Sized(Vectors):
        def features(self, pixels):
            sizes.append(pixels.shape[-1])
            return super().features(pixels)

    images = Coloured(LABELS, size=64)
    both = score(Sized(shown), images, size=64, scales=(1.0, 0.5))
    assert set(sizes) == {64, 32}
    assert both.scores["leave-one-out"]["mAP"] == pytest.approx(1.0)  # what the smaller one holds is not lost
    assert both.fingerprint != score(Sized(shown), images, size=64).fingerprint


@pytest.fixture
def benchmark(tmp_path):
    """Eight plain pictures; 0 and 1 are easy for the query, 2 is hard, 3 is junk; the query looks like 0."""
    levels = [200, 190, 120, 195, 20, 30, 40, 50]
    (tmp_path / "jpg").mkdir()
    random = np.random.default_rng(0)
    base = random.integers(-20, 20, (32, 32, 3))
    other = random.integers(-20, 20, (32, 32, 3))
    for i, level in enumerate(levels):
        share = level / 200
        picture = 128 + share * base + (1 - share) * other
        Image.fromarray(picture.astype(np.uint8)).save(tmp_path / "jpg" / f"image_{i}.png")
    Image.fromarray((128 + base).astype(np.uint8)).save(tmp_path / "jpg" / "query.png")
    truth = {
        "imlist": [f"image_{i}" for i in range(8)],
        "qimlist": ["query"],
        "gnd": [{"bbx": [0, 0, 1, 1], "easy": [0, 1], "hard": [2], "junk": [3]}],
    }
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    return tmp_path


def test_a_benchmark_is_scored_as_medium_and_hard(benchmark):
    found = score(RawPixels(), str(benchmark / "jpg"), None, benchmark / "truth.json")
    assert set(found.scores) == {"medium", "hard"}
    assert found.scores["medium"]["mAP"] == pytest.approx(1.0)  # 0, (3,) 1, 2 come first
    assert found.scores["hard"]["mAP"] == pytest.approx(1.0)  # 0, 1 and 3 are junk
    assert found.scores["medium"]["precision@10"] == pytest.approx(1.0)
    assert found.facts["data"]["images"] == 8


def test_an_image_missing_from_a_benchmark_is_named(benchmark):
    (benchmark / "jpg" / "image_5.png").unlink()
    with pytest.raises(ValueError, match="--data lacks 1 of 8 images, the first is 'image_5'"):
        score(RawPixels(), str(benchmark / "jpg"), None, benchmark / "truth.json")


def test_the_command_line_takes_a_ground_truth(benchmark, capsys):
    data = ["--data", str(benchmark / "jpg"), "--ground-truth", str(benchmark / "truth.json")]
    assert main(["evaluate", "retrieve", "pixels", *data, "--size", "32", "--workers", "0", "--cache", "none"]) == 0
    assert "medium" in capsys.readouterr().out


@pytest.mark.parametrize(("wrong", "message"), [({"k": ()}, r"k is \[\]"), ({"scales": (0.0,)}, r"scales are \[0.0\]")])
def test_settings_that_cannot_work_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        RetrieveSettings(**wrong)
