import json
import math

import numpy as np
import pytest
import torch

from polygrain.data.images import Images
from polygrain.evaluate.pixels import RawPixels
from polygrain.evaluate.profile import Grain, granularity_profile, kept_neighbours, knn_grain, labels_of
from polygrain.evaluate.settings.unlabelled import LookSettings, UnlabelledSettings
from polygrain.evaluate.unlabelled.changes import usable
from polygrain.evaluate.unlabelled.looking import look, open_and_draw
from polygrain.evaluate.unlabelled.protocol import evaluate_unlabelled
from polygrain.parts.encoder import Encoder, EncoderSettings, Features

SMALL = {"images": 40, "changed": 10, "views": 2, "workers": 0, "cache": "none"}
VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}


class Pictures(Images):
    """Smooth random pictures; those of one class have the same colours at large."""

    def __init__(self, count=40, classes=4, size=48):
        super().__init__(count)
        self.size, self.count = size, classes
        self.classes = [f"class {c}" for c in range(classes)]

    def name(self, i):
        return f"picture {i}"

    def labels(self):
        return np.arange(len(self)) % self.count

    def load(self, i):
        def blocks(seed, cells):
            random = torch.Generator().manual_seed(seed)
            cells = torch.rand(1, 3, cells, cells, generator=random)
            return torch.nn.functional.interpolate(cells, (self.size, self.size), mode="bicubic")[0]

        return (255 * (0.6 * blocks(i % self.count, 2) + 0.4 * blocks(100 + i, 6)).clamp(0, 1)).to(torch.uint8)


class Constant(RawPixels):
    """The same features for whatever it is shown."""

    def features(self, pixels):
        seen = super().features(pixels)
        return Features(*(torch.full_like(part, 0.5) for part in seen[:3]), seen.grid)


def numbers_in(value):
    if isinstance(value, dict):
        return [n for part in value.values() for n in numbers_in(part)]
    return [value]


def encoder(name, arguments):
    torch.manual_seed(0)
    return Encoder(EncoderSettings(name=name, arguments=arguments))


@pytest.mark.parametrize(
    ("name", "arguments", "size"),
    [
        ("vit_tiny_patch16_224", VIT, 32),
        ("resnet18", {}, 64),
        ("convnext_atto", {"depths": (1, 1, 1, 1)}, 64),
    ],
)
def test_every_family_gets_every_row(name, arguments, size):
    result = evaluate_unlabelled(
        encoder(name, arguments), Pictures(), UnlabelledSettings(**SMALL, size=size, clusters=(5,))
    )
    kinds = [row.split(":")[0] for row in result.scores]
    assert list(dict.fromkeys(kinds)) == ["spectrum", "region", "instance", "neighbourhood", "group"]
    assert all(math.isfinite(number) for number in numbers_in(result.scores))
    assert "region: patch finds its place" in result.table()
    assert json.loads(result.json())["fingerprint"] == result.fingerprint


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others():
    model = encoder("vit_tiny_patch16_224", VIT)

    def scores(seed):
        settings = UnlabelledSettings(**SMALL, size=32, clusters=(4,), seed=seed)
        return evaluate_unlabelled(model, Pictures(), settings).scores

    assert scores(0) == scores(0)
    assert scores(0) != scores(1)


def test_an_image_is_changed_the_same_way_whatever_images_stand_beside_it():
    small = UnlabelledSettings(**SMALL, size=32, clusters=(4,))
    opened = open_and_draw("pixels", Pictures(), small)
    changes = usable(3)
    together = look(opened, small, changes)
    alone = look(opened._replace(positions=opened.positions[:1]), small, changes)
    for name in changes:
        assert (alone.changed[name][0] == together.changed[name][0]).all()
    assert (alone.views[0] == together.views[0]).all()


def test_constant_features_are_said_in_one_line_and_give_no_nan():
    result = evaluate_unlabelled(Constant(), Pictures(), UnlabelledSettings(**SMALL, size=32))
    assert any("tells no image from another" in note for note in result.notes)
    assert all(math.isfinite(number) for number in numbers_in(result.scores))
    assert {row.split(":")[0] for row in result.scores} == {"spectrum"}
    assert result.scores["spectrum: effective rank, centred"]["value"] == 0
    assert result.scores["spectrum: uniformity"]["value"] == pytest.approx(0, abs=1e-6)


def test_a_profile_of_constant_features_is_at_chance_and_says_so():
    images = Pictures()
    profile = granularity_profile(Constant(), images, images.labels(), LookSettings(**SMALL, size=32))
    assert any("tells no image from another" in note for note in profile.notes)
    assert all(math.isfinite(number) for grain in profile.grains for number in grain[1:5])
    assert max(grain.value for grain in profile.grains) <= 0.26


def test_neighbours_that_stay_equal_a_loop():
    random = np.random.default_rng(0)
    plain, views = random.normal(size=(40, 6)), random.normal(size=(12, 3, 6))
    views += 2 * plain[:12, None]

    def listed(query, i):
        falling = np.argsort(-(plain @ query) / np.linalg.norm(plain, axis=1))
        return set([j for j in falling.tolist() if j != i][:5])

    kept = [np.mean([len(listed(plain[i], i) & listed(view, i)) / 5 for view in views[i]]) for i in range(12)]
    found = kept_neighbours(torch.from_numpy(views), torch.from_numpy(plain), 5)
    assert 0.3 < np.mean(kept) < 0.9
    assert found.tolist() == pytest.approx(kept)


def test_neighbours_that_a_model_cannot_tell_apart_stay_by_chance():
    """100 images with two vectors: 10 of the 49 others of its kind, drawn twice, share 10 / 49 of them."""
    plain = torch.eye(2)[torch.arange(100) % 2]
    views = plain[:, None].expand(-1, 2, -1)
    shares = [kept_neighbours(views, plain, 10, seed).mean() for seed in range(60)]
    assert abs(np.mean(shares) - 10 / 49) < 3 * np.std(shares) / 60**0.5
    assert np.std(shares) < 0.1


def test_a_profile_names_its_grains_from_small_to_large():
    images = Pictures()
    labels = {"fine": images.labels(), "coarse": images.labels() // 2}
    profile = granularity_profile("pixels", images, labels, LookSettings(**SMALL, size=32))
    assert [grain.name for grain in profile.grains] == ["region", "instance", "neighbourhood", "fine", "coarse"]
    assert Grain._fields == ("name", "value", "low", "high", "chance", "about", "sample")
    assert all(0 <= grain.low <= grain.value <= grain.high <= 1 for grain in profile.grains)
    assert profile.grains[1].chance == 1 / 40
    assert profile.grains[3].chance == 1 / 4
    assert profile.grains[4].chance == 1 / 2


def test_knn_of_features_that_are_the_classes_is_right_everywhere_and_of_permuted_labels_by_chance():
    labels = np.arange(400) % 4
    features = torch.eye(4)[labels] + 0.01 * torch.randn(400, 4, generator=torch.Generator().manual_seed(0))
    assert knn_grain("fine", features, labels).value == 1
    noise = torch.randn(400, 16, generator=torch.Generator().manual_seed(1))
    assert abs(knn_grain("fine", noise, labels).value - 0.25) < 3 * math.sqrt(0.25 * 0.75 / 400)


def test_images_without_a_label_neither_vote_nor_count():
    labels = np.arange(100) % 2
    features = torch.eye(2)[labels] + 0.01 * torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
    spoilt = labels.copy()
    spoilt[:50] = -1
    assert knn_grain("fine", features, spoilt).about.startswith("images of 2 classes whose 20 nearest")
    assert knn_grain("fine", features, spoilt).value == 1


def test_a_hierarchy_groups_classes(tmp_path):
    file = tmp_path / "groups.json"
    file.write_text(json.dumps({"class 0": "b", "class 1": "a", "class 2": "b", "class 3": "a", "other": "c"}))
    labels = labels_of(Pictures(8), file)
    assert labels["fine"].tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    assert labels["coarse"].tolist() == [1, 0, 1, 0, 1, 0, 1, 0]
    file.write_text(json.dumps({"class 0": "b"}))
    with pytest.raises(ValueError, match="no group for class 'class 1'"):
        labels_of(Pictures(8), file)


def test_a_hierarchy_that_nothing_can_be_done_with_is_refused(tmp_path):
    class Unlabelled(Pictures):
        def labels(self):
            return None

    file = tmp_path / "groups.json"
    with pytest.raises(ValueError, match=r"groups.json': No such file"):
        labels_of(Pictures(8), file)
    file.write_text("{")
    with pytest.raises(ValueError, match=r"groups.json': no JSON"):
        labels_of(Pictures(8), file)
    file.write_text("[1]")
    with pytest.raises(ValueError, match="must look like"):
        labels_of(Pictures(8), file)
    with pytest.raises(ValueError, match=r"no labels that .*groups.json' could group"):
        labels_of(Unlabelled(8), file)


def test_a_map_of_one_cell_has_no_regions_and_says_so():
    settings = UnlabelledSettings(**SMALL, size=32, clusters=(4,))
    result = evaluate_unlabelled(encoder("resnet10t", {}), Pictures(), settings)
    assert not [row for row in result.scores if row.startswith("region")]
    assert any("one cell" in note for note in result.notes)


def test_labels_that_are_not_one_for_each_image_are_refused():
    with pytest.raises(ValueError, match="3 labels named 'fine' for 40 images"):
        granularity_profile("pixels", Pictures(), np.zeros(3, np.int64), LookSettings(**SMALL, size=32))


def test_too_few_images_are_refused():
    with pytest.raises(ValueError, match="8 images"):
        evaluate_unlabelled("pixels", Pictures(8), UnlabelledSettings(**SMALL, size=32))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"images": 5}, "images is 5; it must be 20 or more"),
        ({"views": 1}, "views is 1"),
        ({"clusters": (1,)}, r"clusters is \[1\]"),
    ],
)
def test_settings_that_cannot_work_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        UnlabelledSettings(**wrong)
