"""Pictures whose colours tell the classes, and their masks."""

import json

import numpy as np
import torch
from PIL import Image

COLOURS = np.array([[20, 20, 20], [220, 30, 30], [30, 200, 40], [40, 50, 230]], np.uint8)


def masks_of(count, *, size=32, seed=0, classes=4):
    """Rectangles of classes 1 .. on a background of class 0, (n, size, size)."""
    random = np.random.default_rng(seed)
    masks = np.zeros((count, size, size), np.uint8)
    for mask in masks:
        for c in range(1, classes):
            top, left = random.integers(0, size - size // 2, 2) // 4 * 4
            mask[top : top + size // 2, left : left + size // 2 - 4] = c
    return masks


def write(root, count, *, size=32, seed=0, told=None, permuted=False):
    """A folder of images and masks; permuted, the mask of another image."""
    masks = masks_of(count, size=size, seed=seed)
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    random = np.random.default_rng(seed + 1)
    for i, mask in enumerate(masks):
        noise = random.integers(0, 20, (size, size, 3))
        Image.fromarray((COLOURS[mask] + noise).astype(np.uint8)).save(root / "images" / f"{i:03}.png")
        shown = masks_of(1, size=size, seed=1000 + i)[0] if permuted else mask
        Image.fromarray(shown).save(root / "masks" / f"{i:03}.png")
    if told is not None:
        (root / "classes.json").write_text(json.dumps(told))
    return root


def draws(*shape, classes, seed=0):
    return torch.randint(0, classes, shape, generator=torch.Generator().manual_seed(seed))
