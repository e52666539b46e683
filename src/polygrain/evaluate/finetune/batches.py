"""Augmented training images for fine-tuning, the same ones whatever the number of workers."""

import dataclasses
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2.functional import to_pil_image

from polygrain.data.images import Images
from polygrain.data.photometric import Normalisation
from polygrain.evaluate.features import default_workers
from polygrain.evaluate.loading import from_workers
from polygrain.evaluate.settings.finetune import FinetuneRecipe
from polygrain.parts.finetuning import augmentation


@contextmanager
def seeded(*key: int) -> Iterator[None]:
    """Python's, NumPy's and torch's global generators (on the CPU) start from a key, and afterwards go on as before."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002  # timm draws from it
    first, second, third = np.random.SeedSequence(key).generate_state(3).tolist()
    random.seed(first)
    np.random.seed(second)  # noqa: NPY002
    torch.default_generator.manual_seed(third)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])


class AugmentedImages(Dataset[tuple[Tensor, int]]):
    """Images by keys (epoch, how often it was drawn in it, position): pixels and the position they are of."""

    def __init__(
        self, images: Images, size: int, normalisation: Normalisation, recipe: FinetuneRecipe, seed: int
    ) -> None:
        self.images, self.seed = images, seed
        self.augment = augmentation(
            size,
            mean=normalisation.mean,
            std=normalisation.std,
            rand_augment=recipe.rand_augment,
            erase=recipe.erase,
        )

    def __getitem__(self, key: tuple[int, int, int]) -> tuple[Tensor, int]:
        image, read = self.images.read(key[2])
        with seeded(self.seed, *key):
            return self.augment(to_pil_image(image)), read


def fitted(recipe: FinetuneRecipe, images: int) -> FinetuneRecipe:
    """The recipe with batches that occur: of an even number of images, all of them at most; learning rates follow.

    Raises:
        ValueError: when a single image is left to train.
    """
    if images < 2:
        raise ValueError(f"{images} image is left to train, and fine-tuning needs 2 or more; give more images")
    return dataclasses.replace(recipe, train_batch_size=min(recipe.train_batch_size, images) // 2 * 2)


def steps_of_epoch(
    positions: NDArray[np.int64], recipe: FinetuneRecipe, seed: int, epoch: int
) -> list[list[tuple[int, int, int]]]:
    """Keys of the images of each step: whole batches, an even number each, in an order of the epoch's own.

    With repeats (arXiv:1901.09335, as DeiT has them) each image comes so many times and the epoch stays as long, so
    that it sees a part of the images. What does not fill a batch is left to another epoch.
    """
    order = np.random.default_rng([seed, epoch]).permutation(positions)
    drawn = [(epoch, again, int(i)) for i in order for again in range(recipe.repeats)][: len(order)]
    size = fitted(recipe, len(drawn)).train_batch_size
    return [drawn[start : start + size] for start in range(0, len(drawn) - size + 1, size)]


def batches(
    data: AugmentedImages, steps: Sequence[list[tuple[int, int, int]]], workers: int | None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Pixels (B, 3, H, W) and positions (B,) of the images they are of, of an even number of images.

    An image that can no longer be decoded is left out, and another with it where the number would be odd: its
    replacement may be held out, or not one of the images to train on.
    """
    loader: Any = DataLoader(data, batch_sampler=steps, num_workers=default_workers() if workers is None else workers)
    for keys, (pixels, positions) in zip(steps, from_workers(loader), strict=True):
        kept = (positions == torch.tensor([key[2] for key in keys])).nonzero().flatten()
        if kept := kept[: len(kept) // 2 * 2].tolist():
            yield pixels[kept], positions[kept]
