import pickle

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from polygrain.data.scenes import COARSE, COARSE_OF_FINE, FINE, MASK_CLASSES, Scenes

CHANCE = {"coarse": 1 / 5, "fine": 1 / 15}
Vectors = NDArray[np.float32]


@pytest.fixture(scope="module")
def train() -> Scenes:
    return Scenes(750, seed=0).keep()


@pytest.fixture(scope="module")
def val() -> Scenes:
    return Scenes(300, seed=1).keep()


def pixels(scenes: Scenes) -> Vectors:
    """(n, 3, S, S)"""
    return np.stack([scenes.decode(i).numpy() for i in range(len(scenes))]).astype(np.float32)


def knn(train: Vectors, val: Vectors, labels: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """Majority among the k training vectors of largest cosine, weighted exp(s / 0.1), one picture at a time."""
    answers = []
    train = train / np.linalg.norm(train, axis=1, keepdims=True)
    for vector in val:
        similarity = train @ (vector / np.linalg.norm(vector))
        near = np.argsort(-similarity)[:k]
        answers.append(np.bincount(labels[near], np.exp(similarity[near] / 0.1)).argmax())
    return np.array(answers)


def test_pictures_are_a_function_of_seed_index_and_size_alone():
    long, short = Scenes(20, seed=3), Scenes(12, seed=3)
    order = [11, 0, 7]
    assert all(torch.equal(short.decode(i), long.decode(i)) for i in order)
    assert not torch.equal(long.decode(0), Scenes(20, seed=4).decode(0))


@pytest.mark.parametrize("size", [16, 50, 96])
def test_pictures_have_any_size(size: int):
    scenes = Scenes(15, size=size)
    for i in range(15):
        assert scenes.decode(i).shape == (3, size, size)
        assert scenes.mask(i).shape == (size, size)


def test_pictures_kept_in_memory_are_the_same(train: Scenes):
    fresh = Scenes(750, seed=0)
    for i in (0, 13, 749):
        assert torch.equal(train.decode(i), fresh.decode(i))
        assert torch.equal(pickle.loads(pickle.dumps(train)).decode(i), fresh.decode(i))


def test_every_stretch_of_fifteen_pictures_shows_every_kind(train: Scenes):
    fine, coarse = train.fine_labels(), train.coarse_labels()
    assert (np.sort(fine.reshape(-1, 15)) == np.arange(15)).all()
    assert (np.bincount(coarse) == 150).all()
    assert (coarse == COARSE_OF_FINE[fine]).all()
    assert len(FINE) == 15 and len(COARSE) == 5 and train.classes == list(FINE)
    assert np.array_equal(train.labels(), fine) and train.label(17) == fine[17]


def test_boxes_and_mask_agree(train: Scenes):
    for i in range(60):
        thing = train.mask(i) >= MASK_CLASSES.index("animal")
        covered = np.zeros_like(thing)
        for top, left, height, width in train.boxes(i):
            rows = slice(int(np.floor(top)), int(np.ceil(top + height)))
            columns = slice(int(np.floor(left)), int(np.ceil(left + width)))
            covered[rows, columns] = True
            assert thing[rows, columns].mean() > 0.2
        assert thing.sum() > 0.03 * thing.size
        assert not (thing & ~covered).any()
        assert set(np.unique(train.mask(i)[thing])) == {MASK_CLASSES.index(COARSE[train.coarse_labels()[i]])}


def test_every_class_of_the_mask_occurs(train: Scenes):
    seen = np.unique(np.concatenate([np.unique(train.mask(i)) for i in range(60)]))
    assert seen.tolist() == list(range(len(MASK_CLASSES))) == list(range(10))


def test_views_of_an_instance_share_its_looks_and_nothing_else():
    scenes = Scenes(60, images_per_instance=2)
    assert scenes.instances().tolist() == [i // 2 for i in range(60)]

    def thing_colour(i: int) -> Vectors:
        picture = scenes.decode(i).permute(1, 2, 0).numpy().astype(np.float32)
        return picture[scenes.mask(i) >= 5].mean(0)

    colours = np.stack([thing_colour(i) for i in range(60)])
    within = np.linalg.norm(colours[::2] - colours[1::2], axis=1)
    between = np.linalg.norm(colours[:-2:2] - colours[2::2], axis=1)
    assert np.median(within) < 0.25 * np.median(between)
    boxes = np.concatenate([scenes.boxes(i) for i in range(60)])
    assert (boxes[::2] != boxes[1::2]).any(1).all()


def test_mean_colour_does_not_tell_the_class(train: Scenes, val: Scenes):
    first, second = pixels(train).mean((2, 3)), pixels(val).mean((2, 3))
    centre = first.mean(0)
    for k in (10, 20):
        fine = knn(first - centre, second - centre, train.fine_labels(), k)
        assert (fine == val.fine_labels()).mean() < CHANCE["fine"] + 0.06
        coarse = knn(first - centre, second - centre, train.coarse_labels(), k)
        assert (coarse == val.coarse_labels()).mean() < CHANCE["coarse"] + 0.07


def test_pixels_hardly_tell_the_class(train: Scenes, val: Scenes):
    small = [pixels(s).reshape(-1, 3, 16, 4, 16, 4).mean((3, 5)).reshape(len(s), -1) for s in (train, val)]
    centre = small[0].mean(0)
    for k in (10, 20):
        fine = knn(small[0] - centre, small[1] - centre, train.fine_labels(), k)
        assert (fine == val.fine_labels()).mean() < 0.2
        coarse = knn(small[0] - centre, small[1] - centre, train.coarse_labels(), k)
        assert (coarse == val.coarse_labels()).mean() < 0.36


@pytest.mark.parametrize("arguments", [{"count": 0}, {"count": 1, "size": 8}, {"count": 1, "images_per_instance": 0}])
def test_impossible_sets_are_refused(arguments: dict[str, int]):
    with pytest.raises(ValueError, match="at least 1 picture, 16 pixels"):
        Scenes(**arguments)
