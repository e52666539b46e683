import pytest
import torch

from polygrain.evaluate.labelled import labelled_features
from polygrain.evaluate.overlap import shared
from polygrain.evaluate.pixels import RawPixels
from polygrain.evaluate.settings import KnnSettings
from tests.evaluate.fakes import Coloured


@pytest.mark.parametrize("copies", [0, 1, 7])
def test_as_many_are_shared_as_were_copied_whatever_the_float_noise(copies):
    random = torch.Generator().manual_seed(0)
    train, val = (torch.randn(n, 48, generator=random) + 5 for n in (400, 90))  # as features, all to one side
    val[10 : 10 + copies] = train[100 : 100 + copies] * (1 + 1e-7)
    by_pairs = (torch.cdist(val.double(), train.double()) < 1e-3).any(1).sum().item()
    assert shared(train, val) == by_pairs == copies


def test_many_copies_of_one_picture_count_once_for_each_test_image():
    train, val = torch.ones(500, 8), torch.ones(3, 8)
    val[2, 0] = 1.001
    assert shared(train, val) == 2


def test_test_images_that_were_trained_on_are_said_aloud():
    seen = labelled_features(RawPixels(), *[Coloured([0, 1, 2, 0, 1, 2])] * 2, KnnSettings(size=16, workers=0))
    assert any("6 of 6 validation images have the features of a training image" in note for note in seen.notes)
    seen = labelled_features(
        RawPixels(), Coloured([0, 1, 2] * 3), Coloured([0, 1, 2], seed=1), KnnSettings(size=16, workers=0)
    )
    assert not any("features of a training image" in note for note in seen.notes)
