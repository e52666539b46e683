"""Near-duplicates among neighbours: they make every measure of neighbours look better than it is."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from polygrain.data.duplicates import NEAR_BITS, OTHER_BITS
from polygrain.data.images import Images
from polygrain.data.looking import difference_hashes
from polygrain.evaluate.features import default_workers
from polygrain.evaluate.loading import from_workers

LISTED = 100  # pairs
BATCH = 64  # images that a worker decodes at a time


class Hashes(Dataset[tuple[int, ...]]):
    """Perceptual hashes of images, by their place in the source."""

    def __init__(self, images: Images) -> None:
        self.images = images

    def __getitem__(self, i: int) -> tuple[int, ...]:
        return difference_hashes(self.images.decode(i))


class Twins(NamedTuple):
    """Images with a near-duplicate among their nearest neighbours."""

    with_one: NDArray[np.bool_]  # (N,)
    pairs: list[tuple[str, str]]  # names, each pair once, the first hundred


def near_duplicates(images: Images, positions: NDArray[np.int64], lists: Tensor, *, workers: int | None) -> Twins:
    """Compares perceptual hashes of each image with those of its neighbours, as `polygrain inspect` does.

    Args:
        positions: (N,) of the images in their source.
        lists: (N, k) long, rows of the neighbours.
        workers: processes that decode; None for one less than the cores, at most 8.
    """
    loader: Any = DataLoader(
        Hashes(images),
        batch_sampler=[positions[start : start + BATCH].tolist() for start in range(0, len(positions), BATCH)],
        num_workers=default_workers() if workers is None else workers,
        collate_fn=list,
    )
    hashes = np.array([pair for batch in from_workers(loader) for pair in batch], dtype=np.uint64)  # (N, 2)
    rows = lists.numpy()
    differing = np.ascontiguousarray(hashes[:, None] ^ hashes[rows])[..., None].view(np.uint8)  # (N, k, 2, 8)
    bits = np.unpackbits(differing, axis=-1).sum(-1)  # (N, k, 2)
    near = (bits[..., 0] <= NEAR_BITS) & (bits[..., 1] <= OTHER_BITS)
    i, at = np.nonzero(near)
    pairs = sorted({(min(a, b), max(a, b)) for a, b in zip(i.tolist(), rows[i, at].tolist(), strict=True)})
    names = [(images.name(int(positions[a])), images.name(int(positions[b]))) for a, b in pairs[:LISTED]]
    return Twins(near.any(1), names)
