"""Small stand-ins for images."""

import colorsys

import numpy as np
import torch

from polygrain.data.decoding import Undecodable
from polygrain.data.images import Images


class Coloured(Images):
    """Plain pictures whose colour tells the class, with a little noise; `broken_at` cannot be decoded."""

    def __init__(self, labels, *, classes=None, size=16, seed=0, broken_at=()):
        super().__init__(len(labels))
        self._labels = np.asarray(labels, dtype=np.int64)
        self.classes, self.size, self.seed, self.broken_at = classes, size, seed, broken_at

    def name(self, i):
        return f"picture {i}"

    def labels(self):
        return self._labels

    def load(self, i):
        if i in self.broken_at:
            raise Undecodable("spoilt")
        random = torch.Generator().manual_seed(1000 * self.seed + i)
        noise = torch.randint(-10, 11, (3, self.size, self.size), generator=random)
        hue = self._labels[i] / (self._labels.max() + 1)
        colour = torch.tensor(colorsys.hsv_to_rgb(hue, 0.8, 0.8)).view(3, 1, 1)
        return (235 * colour + 15 + noise).to(torch.uint8)
