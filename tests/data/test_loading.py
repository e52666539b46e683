import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from polygrain.data.batch import Batch
from polygrain.data.decoding import Undecodable
from polygrain.data.images import Images
from polygrain.data.loading import ViewBatches
from polygrain.data.photometric import IMAGENET
from polygrain.views import Crops

CROPS = (
    Crops(name="large", count=2, size=32, scale=(0.25, 1.0), recipes=("byol_a", "byol_b")),
    Crops(
        name="small",
        count=2,
        size=16,
        scale=(0.05, 0.25),
        recipes=("dino_local",),
        strong_recipe="mugs_strong",
        strong_probability=0.5,
    ),
)
BROKEN = 5


class Noise(Images):
    """Sixteen images of as many shapes; the fifth cannot be decoded, every third has no label."""

    def __init__(self, labelled: bool = True) -> None:
        super().__init__(16)
        self.labelled = labelled

    def name(self, i: int) -> str:
        return str(i)

    def load(self, i: int) -> Tensor:
        if i == BROKEN:
            raise Undecodable("on purpose")
        generator = torch.Generator().manual_seed(i)
        return torch.randint(0, 256, (3, 30 + i, 50 - i), dtype=torch.uint8, generator=generator)

    def labels(self) -> np.ndarray | None:
        return np.where(np.arange(16) % 3, np.arange(16), -1) if self.labelled else None


def batches(workers: int, batch: int, epochs: int = 2) -> list[Batch]:
    keys = [(epoch, (7 * i) % 16) for epoch in range(epochs) for i in range(16)]
    loader: DataLoader[Batch] = DataLoader(
        ViewBatches(Noise(), CROPS, seed=0, normalisation=IMAGENET),
        batch_sampler=[keys[i : i + batch] for i in range(0, len(keys), batch)],
        num_workers=workers,
        collate_fn=same,
    )
    return list(loader)


def same(batch: Batch) -> Batch:
    return batch


def joined(found: list[Batch]) -> list[Tensor]:
    """Every field of every view, of all images in order."""
    fields = [
        torch.cat([batch.views[crops.name][j][field] for batch in found])
        for crops in CROPS
        for j in range(crops.count)
        for field in range(5)
    ]
    labels = [batch.labels for batch in found if batch.labels is not None]
    return [*fields, torch.cat(labels), torch.cat([batch.image for batch in found])]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than cores
@pytest.mark.parametrize("workers", [1, 3])
def test_views_are_the_same_with_any_number_of_workers(workers: int) -> None:
    alone = joined(batches(0, 4))
    assert all(torch.equal(a, b) for a, b in zip(alone, joined(batches(workers, 4)), strict=True))


def test_two_ranks_see_the_halves_of_what_one_sees() -> None:
    one = joined(batches(0, 8))
    two = joined(batches(0, 4))  # the batches of rank 0 and rank 1 in turn
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_an_image_has_other_views_in_another_epoch() -> None:
    dataset = ViewBatches(Noise(), CROPS, seed=0, normalisation=IMAGENET)
    first, second = dataset.__getitems__([(0, 2), (1, 2)]).views["large"][0].pixels
    assert not torch.equal(first, second)


def test_labels_are_those_of_the_source_and_minus_one_where_there_is_none() -> None:
    batch = ViewBatches(Noise(), CROPS, seed=0).__getitems__([(0, 4), (0, 3), (0, 8)])
    assert batch.labels is not None
    assert batch.labels.tolist() == [4, -1, 8]
    assert ViewBatches(Noise(labelled=False), CROPS, seed=0).__getitems__([(0, 4)]).labels is None


def test_a_replaced_image_brings_its_own_label_views_and_position() -> None:
    dataset = ViewBatches(Noise(), CROPS, seed=0, normalisation=IMAGENET)
    asked, own = dataset.__getitems__([(0, BROKEN)]), dataset.__getitems__([(0, BROKEN + 1)])
    assert all(torch.equal(a, b) for a, b in zip(joined([asked]), joined([own]), strict=True))
    assert asked.image.tolist() == [BROKEN + 1]
