"""Which images each rank sees at each step: a function of seed, epoch and step alone."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

Key = tuple[int, int]  # epoch, position of the image in the dataset


@dataclass(frozen=True, kw_only=True)
class Order:
    """Shuffles the images anew each epoch; the last incomplete batch is dropped.

    A global batch is cut into `accumulate` parts and each part among the ranks in rank order, so that gathering a
    part over ranks gives the same rows in the same order whatever the number of ranks.

    Raises:
        ValueError: when the batch is larger than the data, or does not divide among ranks and parts.
    """

    images: int
    batch_size: int  # images per optimizer step over all ranks
    seed: int
    rank: int = 0
    ranks: int = 1
    accumulate: int = 1

    def __post_init__(self) -> None:
        if self.batch_size > self.images:
            raise ValueError(f"batch size {self.batch_size} is larger than the data ({self.images} images); lower it")
        if self.batch_size % (self.ranks * self.accumulate):
            raise ValueError(
                f"batch size {self.batch_size} does not divide among {self.ranks} device(s) times "
                f"{self.accumulate} accumulated batch(es); take a multiple of {self.ranks * self.accumulate}"
            )

    @property
    def steps_per_epoch(self) -> int:
        return self.images // self.batch_size

    def permutation(self, epoch: int) -> np.ndarray:  # (images,)
        generator = np.random.Generator(np.random.Philox(key=[self.seed, epoch]))
        return generator.permutation(self.images)

    def batches(self, start_step: int, steps: int) -> Iterator[list[Key]]:
        """This rank's batches from optimizer step `start_step` up to `steps`, `accumulate` of them for each step."""
        part = self.batch_size // self.accumulate
        share = part // self.ranks
        epoch, permutation = -1, np.empty(0, dtype=np.int64)
        for step in range(start_step, steps):
            if step // self.steps_per_epoch != epoch:
                epoch = step // self.steps_per_epoch
                permutation = self.permutation(epoch)
            first = (step % self.steps_per_epoch) * self.batch_size
            for i in range(self.accumulate):
                start = first + i * part + self.rank * share
                yield [(epoch, int(image)) for image in permutation[start : start + share]]
