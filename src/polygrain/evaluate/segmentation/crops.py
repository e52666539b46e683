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
    and Mugs use it; images are resized by OpenCV there, which does not antialias.)

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
        random = np.random.default_rng([self.seed, *divmod(i, len(self.truth))])
        image, classes = self.truth.pair(self._image(i))
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

    def name(self, i: int) -> str:
        """Of the image that crop i is cut from."""
        return self.truth.masked.name(self._image(i))

    def _image(self, i: int) -> int:
        epoch, place = divmod(i, len(self.truth))
        return int(np.random.default_rng([self.seed, epoch]).permutation(len(self.truth))[place])

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
    """Brightness, contrast, saturation and hue each changed at even odds, contrast before or after the last two.

    (mmsegmentation's `PhotoMetricDistortion`, which is not torchvision's jitter: brightness is added, contrast
    multiplies the pixels, saturation that of HSV; hue moves by up to 18 of OpenCV's 180 steps.)
    """
    change = random.random(5) < 0.5
    brightness, hue = random.uniform(-32, 32), random.uniform(-18 / 180, 18 / 180)
    contrast, saturation = random.uniform(0.5, 1.5, size=2).tolist()
    if change[0]:
        image = clipped(image + brightness)
    if change[1] and change[4]:
        image = clipped(image * contrast)
    if change[2]:
        image = saturated(image, saturation)
    if change[3]:
        image = pixels_of.adjust_hue(image, hue)
    if change[1] and not change[4]:
        image = clipped(image * contrast)
    return image


def clipped(values: Tensor) -> Tensor:
    return values.clamp(0, 255).to(torch.uint8)


def saturated(image: Tensor, factor: float) -> Tensor:
    """The S of HSV multiplied, up to 1; hue and value stay: the distance of each channel to the largest grows alike."""
    largest, least = image.float().amax(0), image.float().amin(0)
    most = largest / (largest - least).clamp_min(1)  # where the least channel becomes 0
    return clipped((largest - (largest - image) * most.clamp_max(factor)).round())


def batches(crops: Crops, batch_size: int, workers: int | None) -> Iterator[tuple[Tensor, Tensor]]:
    """Pixels (B, C, crop, crop) and classes (B, crop, crop), in order."""
    loader: Any = DataLoader(
        crops, batch_size=batch_size, num_workers=default_workers() if workers is None else workers
    )
    yield from from_workers(loader)
