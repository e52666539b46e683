"""From keys to batches: what a worker of the loader does."""

from collections.abc import Sequence

import torch
from torch.utils.data import Dataset

from polygrain.data.batch import Batch
from polygrain.data.cutting import cut
from polygrain.data.draws import draw
from polygrain.data.images import Images
from polygrain.data.photometric import IMAGENET, Normalisation
from polygrain.views import Crops


class ViewBatches(Dataset[Batch]):
    """Whole batches of views, by lists of keys: (epoch, position of the image in the dataset).

    The epoch travels with each key, so workers that live on from epoch to epoch need not be told of it. For a
    `DataLoader` with a batch sampler of keys and an identity as `collate_fn`.
    """

    def __init__(
        self, images: Images, crops: Sequence[Crops], *, seed: int, normalisation: Normalisation = IMAGENET
    ) -> None:
        self.images = images
        self.crops = tuple(crops)
        self.seed = seed
        self.normalisation = normalisation

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        return self.__getitems__([key])

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> Batch:
        """The batch of these images; an image that cannot be decoded is replaced, with its label, by its source."""
        read = [self.images.read(position) for _, position in keys]
        draws = [
            draw(
                self.crops,
                *pixels.image.shape[1:],
                seed=self.seed,
                epoch=epoch,
                image=pixels.source,
                channels=len(pixels.image),
            )
            for pixels, (epoch, _) in zip(read, keys, strict=True)
        ]
        labels = None
        if self.images.labels() is not None:
            known = [self.images.label(pixels.source) for pixels in read]
            labels = torch.tensor([-1 if label is None else label for label in known])
        views = cut([pixels.image for pixels in read], draws, self.normalisation)
        return Batch(views, labels, torch.tensor([pixels.source for pixels in read]))
