"""Parts of a source, and the split that is made of a labelled one."""

import numpy as np
import pytest

from polygrain.data.part import Part, stratified
from polygrain.data.scenes import Scenes
from tests.evaluate.fakes import Coloured


def test_a_part_gives_the_images_of_its_positions():
    whole = Scenes(6, size=16)
    part = Part(whole, [4, 1])
    assert [part.name(i) for i in range(2)] == [whole.name(4), whole.name(1)]
    assert (part.decode(0) == whole.decode(4)).all()
    assert part.labels().tolist() == whole.labels()[[4, 1]].tolist()


def test_other_positions_are_another_source():
    whole = Scenes(6, size=16)
    assert Part(whole, [4, 1]).fingerprint() != Part(whole, [1, 4]).fingerprint()
    assert Part(whole, [4, 1]).content() != Part(whole, [1, 4]).content()
    assert Part(whole, [4, 1]).state() == Part(Scenes(6, size=16), [4, 1]).state()


def test_datasets_of_other_pictures_are_other_sources():
    first, same, other = (Coloured([0, 1, 2], seed=seed).content() for seed in (0, 0, 1))
    assert first == same != other


def test_every_class_of_two_is_in_both_parts_of_a_stratified_split():
    labels = [0] * 10 + [1] * 5 + [2] * 2 + [3] + [-1] * 3
    train, test = stratified(Coloured(labels), 0.2)
    assert np.bincount(train.labels()).tolist() == [8, 4, 1, 1]
    assert np.bincount(test.labels()).tolist() == [2, 1, 1]
    assert not set(train.positions) & set(test.positions)


def test_the_seed_decides_the_split():
    images = Coloured([0] * 30 + [1] * 30)
    again, other = stratified(images, 0.3, 1)[1], stratified(images, 0.3, 2)[1]
    assert stratified(images, 0.3, 1)[1].positions.tolist() == again.positions.tolist() != other.positions.tolist()


def test_what_cannot_be_split_is_refused():
    with pytest.raises(ValueError, match="every class has one image"):
        stratified(Coloured([0, 1, 2]), 0.2)
    with pytest.raises(ValueError, match="no labels"):
        stratified(Coloured([-1, -1]), 0.2)
