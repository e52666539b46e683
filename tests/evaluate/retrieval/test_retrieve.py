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


def test_chance_is_of_the_queries_that_have_an_answer():
    """Of 0, 0, 1, 1, 2, 3, 4, 5 the last four have none; the others find one of 7."""
    found = score(RawPixels(), Coloured([0, 0, 1, 1, 2, 3, 4, 5]))
    assert found.facts["chance"] == pytest.approx(1 / 7)
    classes = [*"abcdef"]
    asked = score(RawPixels(), Coloured([0, 0, 1, 1, 2], classes=classes), Coloured([0, 3], classes=classes, seed=1))
    assert asked.facts["chance"] == pytest.approx(2 / 5)  # nothing answers the second


def test_queries_that_stand_in_the_database_are_counted_aloud():
    told = "2 of 3 queries have the features of an image of the database"
    database, queries = Coloured([0, 0, 1, 1], seed=1), Coloured([0, 0, 1], seed=1)
    strange = Coloured([0, 0, 1], seed=9)
    queries.load = lambda i: Coloured.load(strange if i == 2 else queries, i)
    assert any(note.startswith(told) for note in score(Vectors(lambda m: m - 0.4), database, queries).notes)
    assert not any("have the features" in note for note in score(Vectors(lambda m: m - 0.4), database).notes)


def test_k_above_what_is_ranked_is_lowered_aloud():
    found = score(RawPixels(), Coloured(LABELS[:18]), k=(1, 1000))
    assert [name for name in found.scores["leave-one-out"] if name.startswith("recall")] == ["recall@1", "recall@17"]
    assert "k above the 17 images that are ranked was lowered to 17, where recall is 100 % for any model" in found.notes
    assert found.fingerprint == score(RawPixels(), Coloured(LABELS[:18]), k=(1, 17)).fingerprint


def test_queries_may_be_of_one_class_and_a_single_folder_names_it(tmp_path):
    for folder, count in (("all/cat", 3), ("all/dog", 4), ("asked/dog", 2), ("strange/fox", 2)):
        (tmp_path / folder).mkdir(parents=True)
        for i in range(count):
            level = np.random.default_rng([i, count]).integers(0, 256, (20, 20, 3), dtype=np.uint8)
            Image.fromarray(level).save(tmp_path / folder / f"{i}.png")
    database = str(tmp_path / "all")
    found = score(RawPixels(), database, str(tmp_path / "asked"))
    assert found.facts["chance"] == pytest.approx(4 / 7)
    assert len(found.items["queries in a database"].values) == 2
    assert len(score(RawPixels(), Coloured(LABELS), Coloured([2, 2])).items["queries in a database"].values) == 2
    with pytest.raises(ValueError, match="--val has a class 'fox' that --data has not"):
        score(RawPixels(), database, str(tmp_path / "strange"))
    with pytest.raises(ValueError, match="--data have the same class"):
        score(RawPixels(), Coloured([2, 2]), Coloured(LABELS))


@pytest.mark.parametrize("stored", [64, 32, 48])
def test_all_scales_see_the_same_part_of_an_image(stored):
    """Columns darken from left to right: the first and last one of a view tell how much of the image it shows."""
    seen = []

    class Looking(RawPixels):
        def features(self, pixels):
            picture = (pixels * self.std + self.mean).clamp(0, 1)
            seen.append((picture[:, :, :, 0].mean() - picture[:, :, :, -1].mean()).item())
            return super().features(pixels)

    class Falling(Coloured):
        def load(self, i):
            return torch.linspace(255, 0, stored).expand(3, stored, stored).to(torch.uint8)

    score(Looking(), Falling([0, 0, 1, 1]), size=64, scales=(1.0, 0.5))
    assert seen == pytest.approx([1 if stored == 64 else 0.875] * 2, abs=0.03)


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


def test_a_benchmark_shows_whole_pictures_at_every_scale(benchmark):
    shapes = []

    class Shaped(RawPixels):
        def features(self, pixels):
            shapes.append(tuple(pixels.shape[2:]))
            return super().features(pixels)

    wide = Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 144, 3), dtype=np.uint8))
    for file in (benchmark / "jpg").iterdir():
        wide.save(file)
    options = {"size": 64, "aspect": "native", "scales": (1.0, 0.5)}
    found = score(Shaped(), str(benchmark / "jpg"), None, benchmark / "truth.json", **options)
    assert set(shapes) == {(64, 96), (32, 48)}
    assert found.facts["preprocessing"]["resize"] == "short side to 64 px, bicubic, antialiased"


def test_other_queries_of_a_benchmark_are_another_protocol(benchmark):
    truth = json.loads((benchmark / "truth.json").read_text())
    (benchmark / "other.json").write_text(json.dumps({**truth, "qimlist": ["image_7"]}))
    asked = [
        score(RawPixels(), str(benchmark / "jpg"), None, benchmark / f"{name}.json") for name in ("truth", "other")
    ]
    assert asked[0].fingerprint != asked[1].fingerprint
    (benchmark / "queries").mkdir()
    (benchmark / "queries" / "query.png").write_bytes((benchmark / "jpg" / "image_7.png").read_bytes())
    apart = score(RawPixels(), str(benchmark / "jpg"), str(benchmark / "queries"), benchmark / "truth.json")
    assert apart.fingerprint != asked[0].fingerprint


def test_a_name_of_several_images_of_a_benchmark_needs_its_folder(benchmark):
    for name in ("a", "b"):
        (benchmark / "jpg" / name).mkdir()
        (benchmark / "jpg" / name / "image_5.png").write_bytes((benchmark / "jpg" / "image_5.png").read_bytes())
    (benchmark / "jpg" / "image_5.png").unlink()
    told = r"'image_5' names 2 images \(a/image_5.png, b/image_5.png\); give the folder too"
    with pytest.raises(ValueError, match=told):
        score(RawPixels(), str(benchmark / "jpg"), None, benchmark / "truth.json")
    truth = json.loads((benchmark / "truth.json").read_text())
    truth["imlist"][5] = "b/image_5"
    (benchmark / "truth.json").write_text(json.dumps(truth))
    assert score(RawPixels(), str(benchmark / "jpg"), None, benchmark / "truth.json").facts["data"]["images"] == 8


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
