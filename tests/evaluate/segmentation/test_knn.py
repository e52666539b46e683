import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from polygrain.evaluate.pixels import RawPixels
from polygrain.evaluate.segmentation.dense import Dense
from polygrain.evaluate.segmentation.knn import bank_without, collect, euclidean, evaluate_segment_knn, votes_of
from polygrain.evaluate.segmentation.running import Look
from polygrain.evaluate.segmentation.sets import open_sets
from polygrain.evaluate.settings.segmentation import SegmentationSettings, SegmentKnnSettings
from polygrain.losses.neighbours import nearest
from polygrain.parts.encoder import Encoder, EncoderSettings
from tests.evaluate.segmentation.shapes import write

QUICK = {"size": 32, "workers": 0, "k": (1, 3, 10)}


def pixels():
    return RawPixels(patch_size=4, image_size=32)


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    root = tmp_path_factory.mktemp("shapes")
    return write(root / "train", 20), write(root / "val", 8, seed=1)


def collected(train, most):
    opened = open_sets(train, train, None, 3, SegmentationSettings())
    look = Look(((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), 32, 0, 1, 0, "cpu")
    return collect(Dense(pixels()), opened.train, 4, look, most=most, seed=0)


def test_colours_are_found_again(sets):
    result = evaluate_segment_knn(pixels(), *sets, settings=SegmentKnnSettings(**QUICK))
    assert list(result.scores) == ["k=1", "k=3", "k=10", "chosen"]
    assert result.scores["chosen"]["miou"] == result.scores[f"k={result.details['k']}"]["miou"] > 0.9
    assert result.scores["chosen"]["miou_oracle"] == max(result.scores[f"k={k}"]["miou"] for k in (1, 3, 10))


def test_masks_of_other_images_teach_no_more_than_the_largest_class(tmp_path):
    train, val = write(tmp_path / "train", 20, permuted=True), write(tmp_path / "val", 8, seed=1, permuted=True)
    result = evaluate_segment_knn(pixels(), train, val, settings=SegmentKnnSettings(**QUICK | {"k": (30,)}))
    assert result.scores["k=30"]["miou"] < result.facts["constant_miou"] + 0.15
    assert "chosen" not in result.scores


@pytest.mark.parametrize(("distance", "metric"), [("cosine", "cosine"), ("l2", "euclidean")])
def test_votes_equal_counting_the_neighbours_that_scikit_learn_finds(sets, distance, metric):
    bank = collected(sets[0], 300)
    dense, image = Dense(pixels()), torch.randn(1, 3, 16, 20, generator=torch.Generator().manual_seed(0))
    found = votes_of(dense, bank, [1, 7], classes=4, distance=distance)(image)
    assert found.shape == (1, 8, 4, 5)
    queries = dense(image)[0].flatten(1).T.numpy()
    rows = NearestNeighbors(n_neighbors=7, metric=metric).fit(bank.vectors.numpy()).kneighbors(queries)[1]
    for k, votes in ((1, found[0, :4]), (7, found[0, 4:])):
        expected = [np.bincount(bank.labels.numpy()[row[:k]], minlength=4) / k for row in rows]
        assert np.allclose(votes.flatten(1).T.numpy(), expected, atol=1e-6)


def test_a_patch_bears_the_class_of_most_of_its_pixels(sets):
    bank = collected(sets[0], 10_000)
    assert bank.seen == len(bank.labels) == 20 * 64
    masks = open_sets(*sets, None, 3, SegmentationSettings()).train
    truth = masks.pair(3).truth.numpy()
    modes = [
        np.bincount(truth[y : y + 4, x : x + 4].ravel()).argmax() for y in range(0, 32, 4) for x in range(0, 32, 4)
    ]
    assert bank.labels[bank.images == 3].tolist() == modes


def test_the_bank_stays_in_bounds_with_equally_many_patches_of_each_image(sets):
    bank = collected(sets[0], 100)
    assert bank.seen == 20 * 64
    assert torch.bincount(bank.images).tolist() == [5] * 20
    left = bank_without(bank, [0, 7])
    assert len(left.labels) == len(left.vectors) == 90
    assert not {0, 7} & set(left.images.tolist())


def test_the_same_seed_gives_the_same_number(sets):
    settings = SegmentKnnSettings(**QUICK, bank=200)
    first, second = (evaluate_segment_knn(pixels(), *sets, settings=settings) for _ in range(2))
    assert first == second


def test_constant_features_are_said_aloud(sets):
    encoder = Encoder(EncoderSettings(name="resnet18"))
    for part in encoder.model.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            torch.nn.init.zeros_(part.weight)
    result = evaluate_segment_knn(encoder, *sets, settings=SegmentKnnSettings(**QUICK, bank=20))
    assert any("the vectors of all training patches are the same" in note for note in result.notes)
    assert 0 <= result.scores["k=1"]["miou"] < 0.5


def test_a_k_above_the_bank_is_lowered_and_said(sets):
    result = evaluate_segment_knn(pixels(), *sets, settings=SegmentKnnSettings(**QUICK | {"k": (1, 500)}, bank=40))
    assert list(result.scores) == ["k=1", "k=40", "chosen"]
    assert any("lowered to 40" in note for note in result.notes)


def test_a_query_that_is_no_number_gets_votes_that_are_none(sets):
    for distance in ("cosine", "l2"):
        votes = votes_of(Dense(pixels()), collected(sets[0], 100), [1, 3], classes=4, distance=distance)
        assert torch.isnan(votes(torch.full((1, 3, 4, 4), torch.nan))).any()


def test_the_nearest_by_l2_are_found_among_long_and_short_vectors():
    random = torch.Generator().manual_seed(0)
    lengths = torch.logspace(-1, 2, 200)[torch.randperm(200, generator=random), None]
    bank = torch.randn(200, 16, generator=random) * lengths
    queries = torch.randn(50, 16, generator=random) * 5
    rows, asked = euclidean(bank)
    expected = NearestNeighbors(n_neighbors=5).fit(bank.double().numpy()).kneighbors(queries.double().numpy())[1]
    assert nearest(asked(queries), rows, 5).rows.tolist() == expected.tolist()
    by_cosine = nearest(queries, bank, 5).rows.numpy()
    assert (by_cosine != expected).any(1).all()


@pytest.mark.parametrize(
    ("wrong", "message"), [({"k": ()}, r"k is \[\]"), ({"bank": 0}, "bank is 0"), ({"held_out": 0.0}, "held_out is 0")]
)
def test_settings_that_cannot_work_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        SegmentKnnSettings(**wrong)
