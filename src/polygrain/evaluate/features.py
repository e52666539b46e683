"""Frozen features of a set of images, in memory."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from polygrain.data.centred import centred
from polygrain.data.photometric import IMAGENET, Normalisation
from polygrain.data.sources import Images
from polygrain.evaluate.pixels import RawPixels
from polygrain.parts.encoder import Encoder


class ImageFeatures(NamedTuple):
    """What an encoder makes of n images, on the CPU, in float32."""

    positions: Tensor  # (n,) long, of the images in their source; those that cannot be decoded are missing
    pooled: Tensor  # (n, D)
    patches: Tensor | None  # (n, N, D), where asked for
    grid: tuple[int, int]  # rows, columns of the patches


class CentredViews(Dataset[tuple[Tensor, int]]):
    """The plain view of each image, and which image the pixels are of."""

    def __init__(
        self,
        images: Images,
        positions: Sequence[int] | NDArray[np.int64],
        size: int,
        resize: int | None,
        normalisation: Normalisation,
        multiple: int | None = None,
    ) -> None:
        self.images, self.positions = images, positions
        self.size, self.resize, self.normalisation, self.multiple = size, resize, normalisation, multiple

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        image, read = self.images.read(int(self.positions[i]))
        return centred(image, self.size, self.normalisation, self.resize, self.multiple), read


class Group(NamedTuple):
    """The views of one size in a batch."""

    pixels: Tensor  # (n, C, H, W)
    places: Tensor  # (n,) long, in the batch


def by_size(views: Sequence[tuple[Tensor, int]]) -> tuple[list[Group], Tensor]:
    """A batch of views and of the images they are of, grouped by the size of the views, in order."""
    places: dict[torch.Size, list[int]] = {}
    for place, (pixels, _) in enumerate(views):
        places.setdefault(pixels.shape, []).append(place)
    groups = [Group(torch.stack([views[i][0] for i in group]), torch.tensor(group)) for group in places.values()]
    return groups, torch.tensor([read for _, read in views])


@torch.no_grad()
def extract(
    encoder: Encoder | RawPixels,
    images: Images,
    *,
    size: int,
    resize: int | None = None,
    normalisation: Normalisation = IMAGENET,
    positions: Sequence[int] | NDArray[np.int64] | None = None,
    batch_size: int = 256,
    workers: int | None = 0,
    device: str = "cpu",
    patches: bool = False,
    aspect: Literal["square", "native"] = "square",
) -> ImageFeatures:
    """Features of every image once, in order, by the encoder in evaluation mode.

    Args:
        size: side of the centre crop; `resize`: length of the short side before it, see `centred`.
        positions: which images; all by default.
        workers: processes that decode images; None for one less than the cores, at most 8.
        patches: keep the patch vectors too, which takes views of one size.
        aspect: of the views; `native` is the image's own, as far as patches can tell.

    Raises:
        ValueError: when views of several sizes are to give patches, the encoder cannot take crops of that size, or a
            feature is not finite; names the image.
    """
    encoder.check_size(size)
    chosen = np.arange(len(images)) if positions is None else np.asarray(positions)
    if patches and aspect == "native":
        raise ValueError(
            "patches of images at their own aspect differ in number; keep the pooled vectors, or use square"
        )
    multiple = encoder.stride if aspect == "native" else None
    views = CentredViews(images, chosen, size, resize, normalisation, multiple)
    workers = default_workers() if workers is None else workers
    batches: Any = DataLoader(views, batch_size=batch_size, num_workers=workers, collate_fn=by_size)
    encoder.to(device)
    pooled, kept_patches, read, grid = [], [], [], (0, 0)
    with evaluating(encoder):
        for groups, index in tqdm(batches, desc="features", unit="batch", disable=not sys.stderr.isatty(), leave=False):
            read.append(index)
            vectors = torch.empty(len(index), encoder.dim)
            for group in groups:
                seen = encoder.features(group.pixels.to(device))
                grid = seen.grid
                vectors[group.places] = seen.pooled.float().cpu()
                if patches:
                    kept_patches.append(_finite(seen.patches.float().cpu(), index, images))
            pooled.append(_finite(vectors, index, images))
    found = torch.cat(read)
    decoded = found == torch.from_numpy(chosen)
    return ImageFeatures(
        found[decoded],
        torch.cat(pooled)[decoded],
        torch.cat(kept_patches)[decoded] if patches else None,
        grid,
    )


def _finite(vectors: Tensor, index: Tensor, images: Images) -> Tensor:
    bad = ~torch.isfinite(vectors.flatten(1)).all(dim=1)
    if bad.any():
        name = images.name(int(index[bad][0]))
        raise ValueError(f"the encoder's features of {name!r} are not finite; its weights may be damaged")
    return vectors


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode, and afterwards every submodule's own mode again."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def default_workers() -> int:
    return max(0, min(8, (os.cpu_count() or 1) - 1))
