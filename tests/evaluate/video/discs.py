"""Little videos of moving discs, in the layout of DAVIS."""

import numpy as np
import torch
from PIL import Image

from polygrain.evaluate.pixels import RawPixels
from polygrain.parts.encoder import Features

HEIGHT, WIDTH = 96, 128
COLOURS = np.array([[90, 100, 110], [220, 40, 40], [40, 60, 230]])


def discs(frames=6, *, objects=2, step=4, height=HEIGHT, width=WIDTH):
    """Pictures (T, H, W, 3) and masks (T, H, W) of discs that move to the right."""
    y, x = np.mgrid[:height, :width]
    masks = np.zeros((frames, height, width), np.uint8)
    for t in range(frames):
        for i in range(objects):
            centre = (height * (i + 1) / (objects + 1), 24 + 12 * i + step * t)
            masks[t][(y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= 14**2] = i + 1
    noise = np.random.default_rng(0).integers(-12, 13, (frames, height, width, 3))
    return (COLOURS[masks] + noise).clip(0, 255).astype(np.uint8), masks


def write_davis(root, *, names=("discs",), listed=None, **options):
    pictures, masks = discs(**options)
    for name in names:
        for kind in ("JPEGImages", "Annotations"):
            (root / kind / "480p" / name).mkdir(parents=True)
        for t, (picture, mask) in enumerate(zip(pictures, masks, strict=True)):
            Image.fromarray(picture).save(root / f"JPEGImages/480p/{name}/{t:05d}.jpg", quality=95)
            Image.fromarray(mask).save(root / f"Annotations/480p/{name}/{t:05d}.png")
    (root / "ImageSets/2017").mkdir(parents=True)
    (root / "ImageSets/2017/val.txt").write_text("\n".join(listed or names) + "\n")
    return root


class Colours(RawPixels):
    """Patches are their mean colours less a middle gray, or what `vectors` makes of those."""

    def vectors(self, means):
        return means - 0.4

    def features(self, pixels):
        seen = super().features(pixels)
        means = seen.patches.unflatten(2, (3, -1)).mean(3)  # (B, N, 3)
        return Features(seen.pooled, self.vectors(means), seen.unnormed, seen.grid)


class Noise(Colours):
    """Patches that say nothing about what they show."""

    def vectors(self, means):
        random = torch.Generator().manual_seed(int(1e6 * means.sum().abs()))
        return torch.randn(means.shape[0], means.shape[1], 16, generator=random)


class Alike(Colours):
    """All patches are the same."""

    def vectors(self, means):
        return torch.ones_like(means)
