"""Random crops of images and masks together, as dense prediction is trained on."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import functional as pixels_of

from polygrain.data.photometric import Normalisation
from polygrain.evaluate.features import default_workers
from polygrain.evaluate.loading import from_workers
from polygrain.evaluate.segmentation.sets import VOID, Truth
from polygrain.evaluate.segmentation.windows import normalised, resized

RATIO = (0.5, 2.0)  # of the size of the short side
MOST_OF_ONE_CLASS = 0.75  # of the pixels of a crop; another is drawn where it is more
TRIES = 10


class Crops(Dataset[tuple[Tensor, Tensor]]):
    """An endless order of crops: item i is a function of (seed, i) alone, and each epoch shows every image once.

    The short side of an image becomes 0.5 to 2 times `size`; of it a square crop is cut in which no class has more than
    three quarters of the pixels (of ten tries the last stands), mirrored at even odds, its colours distorted; what the
    image does not fill is mean colour and void. (mmsegmentation's pipeline of Pascal VOC and ADE20K, as VICRegL, iBOT
    and Mugs use it; brightness is multiplied here as torchvision does, there it is shifted.)

    Args:
        count: of crops.
        colours: distort them.
    """

    def __init__(
        self, truth: Truth, count: int, *, size: int, crop: int, normalisation: Normalisation, seed: int, colours: bool
    ) -> None:
        self.truth, self.count, self.size, self.crop = truth, count, size, crop
        self.normalisation, self.seed, self.colours = normalisation, seed, colours

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        """Pixels (C, crop, crop), normalised, and classes (crop, crop)."""
        epoch, place = divmod(i, len(self.truth))
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.truth))
        random = np.random.default_rng([self.seed, epoch, place])
        image, classes = self.truth.pair(int(order[place]))
        image = resized(image, max(1, round(self.size * random.uniform(*RATIO))))
        classes = F.interpolate(classes[None, None].float(), image.shape[1:], mode="nearest-exact")[0, 0].long()
        top, left = self._place(classes, random)
        part = (slice(top, top + self.crop), slice(left, left + self.crop))
        image, classes = image[:, *part], classes[part]
        if random.random() < 0.5:
            image, classes = image.flip(2), classes.flip(1)
        if self.colours and image.shape[0] == 3:
            image = distorted(image, random)
        pixels = normalised(image, self.normalisation)
        missing = (0, self.crop - classes.shape[1], 0, self.crop - classes.shape[0])
        return F.pad(pixels, missing), F.pad(classes, missing, value=VOID)

    def _place(self, classes: Tensor, random: np.random.Generator) -> tuple[int, int]:
        top = left = 0
        for _ in range(TRIES):
            top, left = (int(random.integers(max(0, side - self.crop) + 1)) for side in classes.shape)
            seen = classes[top : top + self.crop, left : left + self.crop]
            counts = torch.bincount(seen[seen >= 0])
            if (counts > 0).sum() > 1 and counts.max() < MOST_OF_ONE_CLASS * counts.sum():
                break
        return top, left


def distorted(image: Tensor, random: np.random.Generator) -> Tensor:
    """Brightness, contrast, saturation and hue each changed at even odds, contrast before or after the last two."""
    change = random.random(5) < 0.5
    brightness, contrast, saturation = random.uniform(0.875, 1.125), random.uniform(0.5, 1.5), random.uniform(0.5, 1.5)
    hue = random.uniform(-0.05, 0.05)
    if change[0]:
        image = pixels_of.adjust_brightness(image, brightness)
    if change[1] and change[4]:
        image = pixels_of.adjust_contrast(image, contrast)
    if change[2]:
        image = pixels_of.adjust_saturation(image, saturation)
    if change[3]:
        image = pixels_of.adjust_hue(image, hue)
    if change[1] and not change[4]:
        image = pixels_of.adjust_contrast(image, contrast)
    return image


def batches(crops: Crops, batch_size: int, workers: int | None) -> Iterator[tuple[Tensor, Tensor]]:
    """Pixels (B, C, crop, crop) and classes (B, crop, crop), in order."""
    loader: Any = DataLoader(
        crops, batch_size=batch_size, num_workers=default_workers() if workers is None else workers
    )
    yield from from_workers(loader)
