"""Frozen features of a set of images, in memory."""

import itertools
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from polygrain.data.centred import centred
from polygrain.data.photometric import IMAGENET, Normalisation
from polygrain.data.sources import Images
from polygrain.evaluate.loading import from_workers
from polygrain.evaluate.pixels import RawPixels
from polygrain.evaluate.readouts import check_readout, read_out
from polygrain.evaluate.settings import Readout
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
        whole_at: int | None = None,
    ) -> None:
        self.images, self.positions = images, positions
        self.how = size, normalisation, resize, multiple, whole_at

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        image, read = self.images.read(int(self.positions[i]))
        return centred(image, *self.how), read


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


def extract(
    encoder: Encoder | RawPixels,
    images: Images,
    *,
    size: int,
    resize: int | None = None,
    normalisation: Normalisation = IMAGENET,
    positions: Sequence[int] | NDArray[np.int64] | None = None,
    readout: Readout = "pooled",
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
        ValueError: when views of several sizes are to give patches, the encoder cannot take crops of that size or has
            no such readout, or a feature is not finite; names the image.
    """
    chosen = np.arange(len(images)) if positions is None else np.asarray(positions)
    if patches and aspect == "native":
        raise ValueError(
            "patches of images at their own aspect differ in number; keep the pooled vectors, or use square"
        )
    views = Views(images, size=size, resize=resize, normalisation=normalisation, aspect=aspect)
    rows = [chosen[start : start + batch_size] for start in range(0, len(chosen), batch_size)]
    parts = list(encoded(encoder, views, rows, readout=readout, workers=workers, device=device, patches=patches))
    if not parts:
        return ImageFeatures(torch.zeros(0, dtype=torch.long), torch.zeros(0, encoder.dim), None, (0, 0))
    return joined(parts)


def joined(parts: Sequence[ImageFeatures]) -> ImageFeatures:
    """Features of several batches as those of one."""
    patches = [part.patches for part in parts if part.patches is not None]
    return ImageFeatures(
        torch.cat([part.positions for part in parts]),
        torch.cat([part.pooled for part in parts]),
        torch.cat(patches) if patches else None,
        parts[-1].grid,
    )


class Views(NamedTuple):
    """How the images of a source are looked at."""

    images: Images
    size: int
    resize: int | None = None
    normalisation: Normalisation = IMAGENET
    aspect: Literal["square", "native"] = "square"
    whole_at: int | None = None  # short side of images that are not resized before the crop; by default `size`

    def check(self) -> None:
        """Raises ValueError where images would be smaller than the crop, which would be filled with black."""
        if self.resize is not None and self.resize < self.size:
            own = "by default the size the model was trained at"
            mend = f"use {self.size} or more, or a smaller --size"
            raise ValueError(f"resize is {self.resize}, less than the crop of {self.size}, {own}; {mend}")


@torch.no_grad()
def encoded(
    encoder: Encoder | RawPixels,
    views: Views,
    batches: Sequence[NDArray[np.int64]],
    *,
    readout: Readout = "pooled",
    workers: int | None = 0,
    device: str = "cpu",
    patches: bool = False,
) -> Iterator[ImageFeatures]:
    """Features batch by batch, as they are done; `batches` are positions of images."""
    views.check()
    encoder.check_size(views.size)
    check_readout(encoder, readout)
    multiple = encoder.stride if views.aspect == "native" else None
    flat = np.concatenate([np.zeros(0, np.int64), *batches])
    ends = np.cumsum([0, *map(len, batches)])
    loader = DataLoader(
        CentredViews(views.images, flat, views.size, views.resize, views.normalisation, multiple, views.whole_at),
        batch_sampler=[list(range(start, end)) for start, end in itertools.pairwise(ends.tolist())],
        num_workers=default_workers() if workers is None else workers,
        collate_fn=by_size,
    )
    encoder.to(device)
    quiet = not sys.stderr.isatty()
    with evaluating(encoder), tqdm(total=len(flat), desc="features", unit="image", disable=quiet, leave=False) as bar:
        for wanted, (groups, index) in zip(batches, from_workers(loader), strict=True):
            seen = [read_out(encoder, group.pixels.to(device), readout) for group in groups]
            vectors = torch.empty(len(index), seen[0].vectors.shape[1])
            for group, part in zip(groups, seen, strict=True):
                vectors[group.places] = part.vectors.float().cpu()
            _check_finite(vectors, index, views.images)
            kept = index == torch.from_numpy(wanted)  # the others are replacements of what cannot be decoded
            yield ImageFeatures(
                index[kept],
                vectors[kept],
                seen[0].patches.float().cpu()[kept] if patches else None,
                seen[-1].grid,
            )
            bar.update(len(wanted))


def _check_finite(vectors: Tensor, index: Tensor, images: Images) -> None:
    bad = ~torch.isfinite(vectors.flatten(1)).all(dim=1)
    if bad.any():
        name = images.name(int(index[bad][0]))
        raise ValueError(f"the encoder's features of {name!r} are not finite; its weights may be damaged")


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
