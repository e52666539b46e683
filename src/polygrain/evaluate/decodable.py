"""Which images can be decoded, found out before anything is trained on them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from polygrain.data.images import Images
from polygrain.evaluate.features import default_workers
from polygrain.evaluate.loading import from_workers


class _Tried(Dataset[bool]):
    """Whether each image gives its own pixels."""

    def __init__(self, images: Images, positions: NDArray[np.int64]) -> None:
        self.images, self.positions = images, positions

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, i: int) -> bool:
        wanted = int(self.positions[i])
        return self.images.read(wanted).source == wanted


def decodable(images: Images, positions: NDArray[np.int64], workers: int | None) -> NDArray[np.int64]:
    """Those of the positions whose images can be decoded, each tried once."""
    count = default_workers() if workers is None else workers
    loader: Any = DataLoader(_Tried(images, positions), batch_size=64, num_workers=count)
    fine = [bool(one) for batch in from_workers(loader) for one in batch]
    kept: NDArray[np.int64] = positions[np.array(fine, dtype=bool)]
    return kept
