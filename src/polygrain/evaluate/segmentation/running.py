"""What the protocols of segmentation share: how images are looked at, held out, turned into vectors, segmented."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from polygrain.data.photometric import Normalisation
from polygrain.evaluate.models import Model, open_model
from polygrain.evaluate.segmentation import scores as scoring
from polygrain.evaluate.segmentation.dense import Dense, not_finite
from polygrain.evaluate.segmentation.patches import class_counts
from polygrain.evaluate.segmentation.scores import Tally
from polygrain.evaluate.segmentation.sets import Sets, Truth
from polygrain.evaluate.segmentation.windows import LONGEST, LogitsOf, padded, segmented, whole_images

CELLS, LARGEST_SIZE = 32, 512


class Look(NamedTuple):
    """How images are looked at."""

    normalisation: Normalisation
    size: int
    window: int
    stride: int
    workers: int | None
    device: str

    def told(self) -> dict[str, Any]:
        """All of it that decides the numbers, but for the window and what is the model's own."""
        return {"resize": f"short side to {self.size} px, the longer to {LONGEST} times that, bilinear, antialiased"}


def open_seeded(model: Any, seed: int) -> Model:
    """Opens a model; the weights of an untrained one follow the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return open_model(model)


def usual_size(stride: int) -> int:
    """Of the short side: 32 cells of the backbone's map, at most 512 px."""
    return min(LARGEST_SIZE, CELLS * stride)


def size_of(size: int | None, stride: int) -> int:
    """The size that was chosen, or the usual one.

    Raises:
        ValueError: when it is less than a cell of the backbone's map.
    """
    if size is not None and size < stride:
        raise ValueError(f"size is {size}; this backbone has cells of {stride} px, so it must be {stride} or more")
    return size or usual_size(stride)


def held_out(count: int, share: float, seed: int) -> tuple[list[int], list[int]]:
    """Training images to train on, and those to choose by.

    Raises:
        ValueError: when the share is no image, or all of them.
    """
    chooses = round(share * count)
    if not 0 < chooses < count:
        raise ValueError(
            f"holding out {share:.0%} of {count} training images leaves {chooses} to choose by and "
            f"{count - chooses} to train on; both must be 1 or more"
        )
    order = np.random.default_rng(seed).permutation(count).tolist()
    return sorted(order[chooses:]), sorted(order[:chooses])


def segment_set(
    logits_of: LogitsOf, multiple: int, truth: Truth, classes: int, look: Look, *, heads: int = 1
) -> list[Tally]:
    """Segments every image; what each head found.

    Raises:
        ValueError: when an answer is not finite.
    """
    parts: list[list[Tally]] = [[] for _ in range(heads)]
    for i, image in enumerate(whole_images(truth, look.size, look.normalisation, look.workers)):
        answers = finite(logits_of, truth.masked.name(i))
        masks = segmented(
            answers, image, multiple, window=look.window, stride=look.stride, heads=heads, device=look.device
        )
        for part, mask in zip(parts, masks, strict=True):
            part.append(scoring.count(mask, image.truth, classes))
    return [scoring.joined(part) for part in parts]


def finite(logits_of: LogitsOf, name: str) -> LogitsOf:
    """The same, which refuses to answer for an image in what is no number: the largest of it would be some class."""

    def answer(pixels: Tensor) -> Tensor:
        logits = logits_of(pixels)
        if not torch.isfinite(logits).all():
            raise ValueError(
                f"the answer for {name!r} is not finite; the backbone's weights may be damaged, or a learning rate is "
                "too high"
            )
        return logits

    return answer


def patches_of(dense: Dense, truth: Truth, classes: int, look: Look) -> Iterator[tuple[Tensor, Tensor]]:
    """For one image after another, vectors of its patches (N, D), and pixels of each class under each (N, C).

    Raises:
        ValueError: when a vector is not finite.
    """
    for i, image in enumerate(whole_images(truth, look.size, look.normalisation, look.workers)):
        filled = padded(image.pixels, dense.stride)
        maps = dense(filled.to(look.device))[0]  # (D, rows, columns)
        if not torch.isfinite(maps).all():
            raise not_finite(truth.masked.name(i))
        grid = (maps.shape[1], maps.shape[2])
        shares = [cells * s / f for cells, s, f in zip(grid, image.pixels.shape[2:], filled.shape[2:], strict=True)]
        yield maps.flatten(1).T.contiguous().cpu(), class_counts(image.truth, grid, classes, (shares[0], shares[1]))


def summary(name: str, sets: Sets) -> str:
    """One line for people: which model, on what."""
    facts = sets.facts
    return (
        f"{name}: {facts['val']['images']:,} images of {facts['classes']} classes (one class everywhere: "
        f"mIoU {facts['constant_miou']:.1%}, pixels {facts['largest_class']:.1%}); {facts['data']['images']:,} to train"
    )
