"""Some of the images of a source, as a source."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from polygrain.data.images import Images


class Part(Images):
    """The images at `positions` of another source, in that order, with its classes.

    Raises:
        ValueError: when there is none.
    """

    def __init__(self, whole: Images, positions: Sequence[int] | NDArray[np.int64]) -> None:
        if not len(positions):
            raise ValueError("a part of no images was asked for")
        super().__init__(len(positions))
        self.whole, self.positions = whole, np.asarray(positions, dtype=np.int64)
        self.channels, self.classes = whole.channels, whole.classes

    def name(self, i: int) -> str:
        return self.whole.name(int(self.positions[i]))

    def load(self, i: int) -> Tensor:
        return self.whole.load(int(self.positions[i]))

    def encoded(self, i: int) -> bytes | None:
        return self.whole.encoded(int(self.positions[i]))

    def decoded(self, data: bytes) -> Tensor:
        return self.whole.decoded(data)

    def fingerprint(self) -> str:
        return self._with_positions(self.whole.fingerprint())

    def content(self) -> str:
        return self._with_positions(self.whole.content())

    def state(self) -> str | None:
        state = self.whole.state()
        return None if state is None else self._with_positions(state)

    def labels(self) -> NDArray[np.int64] | None:
        labels = self.whole.labels()
        return None if labels is None else labels[self.positions]

    def label(self, i: int) -> int | None:
        return self.whole.label(int(self.positions[i]))

    def _with_positions(self, text: str) -> str:
        return hashlib.blake2b(text.encode() + self.positions.tobytes(), digest_size=16).hexdigest()


def stratified(images: Images, share: float, seed: int = 0) -> tuple[Part, Part]:
    """Two parts of a labelled source: one without and one with about this share of every class, drawn from the seed.

    Every class of two images or more is in both parts; one of a single image is only in the first. Images without a
    label are in neither.

    Raises:
        ValueError: when there are no labels, or no class of two images.
    """
    labels = images.labels()
    if labels is None or not (labels >= 0).any():
        raise ValueError("these images have no labels; class folders, .cls members or a dataset give them")
    random = np.random.default_rng(seed)
    taken: list[NDArray[np.int64]] = []
    for label in np.unique(labels[labels >= 0]):
        rows = random.permutation(np.flatnonzero(labels == label))
        if len(rows) > 1:
            taken.append(rows[: min(max(1, round(share * len(rows))), len(rows) - 1)])
    if not taken:
        raise ValueError("every class has one image; a split needs classes of two or more")
    second = np.sort(np.concatenate(taken))
    first = np.setdiff1d(np.flatnonzero(labels >= 0), second)
    return Part(images, first), Part(images, second)
