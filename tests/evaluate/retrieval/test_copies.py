import numpy as np
import pytest
import torch
from PIL import Image

from polygrain.data.images import Images
from polygrain.evaluate.pixels import RawPixels
from polygrain.evaluate.retrieval.attacks import ATTACKS, attacked
from polygrain.evaluate.retrieval.copies import by_original, evaluate_copies
from polygrain.evaluate.retrieval.hunting import copydays, made
from polygrain.evaluate.retrieval.squeezed import class_and_gem
from polygrain.evaluate.retrieval.whitening import whitening
from polygrain.evaluate.settings.retrieval import CopiesSettings
from polygrain.parts.encoder import Encoder, EncoderSettings, Features

SETTINGS = {"size": 32, "workers": 0, "device": "cpu", "originals": 5}


class Pictures(Images):
    """Random patterns."""

    def __init__(self, count, *, size=40, seed=0):
        super().__init__(count)
        self.size, self.seed = size, seed

    def name(self, i):
        return f"pattern {i}"

    def load(self, i):
        random = np.random.default_rng([self.seed, i])
        coarse = Image.fromarray(random.integers(0, 256, (5, 5, 3), dtype=np.uint8))
        return torch.from_numpy(np.array(coarse.resize((self.size, self.size + 8), Image.BICUBIC))).permute(2, 0, 1)


class Alike(RawPixels):
    """All pictures are the same."""

    def features(self, pixels):
        seen = super().features(pixels)
        return Features(*(torch.ones_like(part) for part in seen[:3]), seen.grid)


def score(model, data, *others, **options):
    return evaluate_copies(model, data, *others, settings=CopiesSettings(**{**SETTINGS, **options}))


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_depends_on_seed_and_image_alone(name):
    image = Pictures(1).load(0)
    copy = attacked(image, name, seed=1, number=7)
    assert copy.dtype == torch.uint8
    assert copy.shape[0] == 3
    assert not torch.equal(copy, image)
    assert torch.equal(copy, attacked(image, name, seed=1, number=7))


@pytest.mark.parametrize("name", ["crop", "rotation", "text", "colour", "strong"])
def test_other_images_and_seeds_get_other_attacks(name):
    image = Pictures(1, size=64).load(0)
    copies = [attacked(image, name, seed=s, number=n) for s, n in ((0, 0), (0, 1), (1, 0))]
    assert not torch.equal(copies[0], copies[1])
    assert not torch.equal(copies[0], copies[2])


def test_a_crop_keeps_half_of_the_area():
    image = torch.zeros(3, 200, 300, dtype=torch.uint8)
    height, width = attacked(image, "crop", seed=0, number=0).shape[1:]
    assert height * width == pytest.approx(30_000, rel=0.01)
    assert width / height == pytest.approx(1.5, rel=0.01)


def test_attacks_work_on_the_smallest_pictures():
    for name in ATTACKS:
        assert attacked(torch.zeros(3, 1, 2, dtype=torch.uint8), name, seed=0, number=0).shape[0] == 3


def test_copies_that_change_nothing_are_all_found(monkeypatch):
    monkeypatch.setattr("polygrain.evaluate.retrieval.attacks.ATTACKS", {"none": lambda image, random: image})
    monkeypatch.setattr("polygrain.evaluate.retrieval.hunting.ATTACKS", {"none": None})
    scores = score(RawPixels(), Pictures(30)).scores["all"]
    assert scores["mAP"] == scores["recall@1"] == scores["pixels_mAP"] == pytest.approx(1.0)


def test_light_attacks_are_easier_than_strong_ones():
    scores = score(RawPixels(), Pictures(60)).scores
    assert scores["jpeg"]["recall@1"] == 1.0
    assert scores["strong"]["recall@1"] < scores["jpeg"]["recall@1"]
    assert set(scores) == {"all", *ATTACKS}


def test_features_that_are_all_alike_find_what_chance_finds_and_say_so():
    found = score(Alike(), Pictures(60), originals=20)
    assert any("ranking is random" in note for note in found.notes)
    assert found.scores["all"]["recall@1"] < 0.15


def test_the_same_seed_gives_the_same_numbers():
    encoder = Encoder(EncoderSettings(name="vit_mini_64", arguments={"depth": 1}))
    first, second = (score(encoder, Pictures(6), originals=2) for _ in range(2))
    assert first.scores == second.scores
    assert first.fingerprint == second.fingerprint != score(encoder, Pictures(6), originals=2, seed=1).fingerprint


def test_distractors_join_the_database():
    found = score(RawPixels(), Pictures(10), Pictures(7, seed=5))
    assert found.facts["data"]["database"] == 17
    assert found.facts["data"]["originals"] == 5
    assert found.fingerprint != score(RawPixels(), Pictures(17)).fingerprint


def test_a_vector_is_the_class_token_and_the_generalised_mean_of_the_patches():
    encoder = Encoder(
        EncoderSettings(name="vit_tiny_patch16_224", arguments={"img_size": 32, "patch_size": 8, "depth": 2})
    ).eval()
    views = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        seen, found = encoder.features(views), class_and_gem(encoder, views)
    torch.testing.assert_close(found[:, :192], seen.pooled)
    for image in range(2):
        for d in (0, 100, 191):
            values = [max(1e-6, float(v)) for v in seen.patches[image, :, d]]
            expected = (sum(v**4 for v in values) / 16) ** 0.25
            assert found[image, 192 + d].item() == pytest.approx(expected, rel=1e-4)


def test_whitening_is_what_the_official_script_computes():
    random = np.random.default_rng(0)
    values = random.standard_normal((200, 6)) @ random.standard_normal((6, 6)) + 3
    eigenvalues, eigenvectors = np.linalg.eigh(values.T @ values / 200)  # of uncentred vectors
    expected = np.diag(eigenvalues**-0.5) @ eigenvectors.T @ (values - values.mean(0)).T
    expected = (expected / np.linalg.norm(expected, axis=0)).T
    found = whitening(torch.from_numpy(values))(torch.from_numpy(values)).numpy()
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-5)  # whatever the signs


def test_centred_whitening_leaves_unit_covariance():
    random = np.random.default_rng(0)
    values = torch.from_numpy(random.standard_normal((400, 4)) @ random.standard_normal((4, 4)) + 3)
    white = whitening(values, "centred")
    moved = (values - white.mean) @ white.rotation.T
    torch.testing.assert_close(moved.T @ moved / 400, torch.eye(4, dtype=torch.float64))


def test_directions_without_variance_are_floored():
    values = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    flat = torch.cat([values, torch.zeros(50, 2)], dim=1)
    assert whitening(flat)(flat).isfinite().all()


def write(root, *names):
    for i, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(root / name)
    return root


def test_copydays_finds_the_original_by_four_characters(tmp_path):
    write(tmp_path, "original/200000.png", "original/200100.png", "strong/200001.png", "strong/200102.png")
    write(tmp_path, "jpegqual/3/200100.png")
    hunt = copydays(tmp_path)
    assert [p.images.name(p.position) for p in hunt.database] == ["original/200000.png", "original/200100.png"]
    by_name = {p.images.name(p.position): place for p, place in zip(hunt.copies, hunt.originals, strict=True)}
    assert by_name == {"strong/200001.png": 0, "strong/200102.png": 1, "jpegqual/3/200100.png": 1}
    assert set(hunt.kinds) == {"strong", "jpegqual/3"}


def test_a_copydays_folder_is_known_by_its_originals(tmp_path):
    write(tmp_path, "original/200000.png", "original/200100.png")
    for name in ("200000", "200100"):
        (tmp_path / "same").mkdir(exist_ok=True)
        (tmp_path / "same" / f"{name}.png").write_bytes((tmp_path / "original" / f"{name}.png").read_bytes())
    found = score(RawPixels(), str(tmp_path), originals=None)
    assert set(found.scores) == {"all", "same"}
    assert found.scores["same"]["mAP"] == pytest.approx(1.0)


def test_the_mean_is_over_copies_however_many_share_an_original(tmp_path):
    """One copy that is its original, and four that look like another picture: 1 of 5 is found."""
    write(tmp_path, "original/200000.png", "original/200100.png", "original/200200.png")
    (tmp_path / "strong").mkdir()
    for copy, looks in ((200001, 200000), *((200201 + i, 200100) for i in range(4))):
        (tmp_path / f"strong/{copy}.png").write_bytes((tmp_path / f"original/{looks}.png").read_bytes())
    found = score(RawPixels(), str(tmp_path), originals=None)
    assert found.scores["strong"]["recall@1"] == found.scores["strong"]["pixels_recall@1"] == pytest.approx(1 / 5)
    assert found.scores["all"]["mAP"] == pytest.approx(found.scores["strong"]["mAP"])
    assert found.facts["data"]["originals"] == len(found.items["all"].values) == 2


def test_originals_are_resampled_with_all_of_their_copies():
    """Of originals A (one copy, 1) and B (three copies, 0) a resample holds AA, AB, BA or BB: means 1, 1/4, 1/4, 0."""
    sample = by_original(np.array([1.0, 0.0, 0.0, 0.0]), torch.tensor([0, 1, 1, 1]))
    estimate = sample.estimate()
    assert (estimate.value, estimate.low, estimate.high) == (0.25, 0.0, 1.0)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ("original/200000.png", "strong/300001.png"),
            r"1 of 1 copies have no original, the first is strong/300001.png",
        ),
        (("original/200000.png", "original/200001.png", "strong/200002.png"), "begin alike"),
        (("original/200000.png",), "no folder of copies"),
    ],
)
def test_a_copydays_folder_that_is_not_whole_is_refused(tmp_path, names, message):
    with pytest.raises(ValueError, match=message):
        copydays(write(tmp_path, *names))


def test_copies_are_made_of_images_drawn_from_the_seed():
    first, second = (made(Pictures(50), 5, seed) for seed in (0, 1))
    assert len(first.copies) == 5 * len(ATTACKS)
    assert first.originals[:5] == first.originals[5:10]
    assert first.originals != second.originals


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"originals": None, "covariance": "centred"}, "covariance is centred, and nothing is whitened; give --whiten"),
        ({"originals": 3}, "originals is 3, and .* is Copydays, which has its own; omit it"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(options, told, tmp_path):
    write(tmp_path, "original/200000.png", "original/200100.png", "strong/200001.png")
    with pytest.raises(ValueError, match=told):
        score(RawPixels(), str(tmp_path), **options)


def test_a_default_that_is_given_is_the_same_protocol():
    asked = [score(RawPixels(), Pictures(4), None, Pictures(9, seed=1), covariance=c) for c in (None, "uncentred")]
    assert asked[0].fingerprint == asked[1].fingerprint
    fifty = [score(RawPixels(), Pictures(3), originals=count) for count in (None, 50)]
    assert fifty[0].fingerprint == fifty[1].fingerprint


def test_one_image_alone_is_no_search():
    with pytest.raises(ValueError, match="1 image to look among, which any copy finds; give more, or --distractors"):
        score(RawPixels(), Pictures(1))
    assert score(RawPixels(), Pictures(1), Pictures(3, seed=5)).facts["data"]["database"] == 4


def test_no_originals_are_refused():
    with pytest.raises(ValueError, match="originals is 0"):
        CopiesSettings(originals=0)
