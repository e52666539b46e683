"""Near-duplicates among neighbours: they make every measure of neighbours look better than it is."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from polygrain.data.duplicates import NEAR_BITS, OTHER_BITS
from polygrain.data.images import Images
from polygrain.data.looking import difference_hashes

LISTED = 100  # pairs


class Twins(NamedTuple):
    """Images with a near-duplicate among their nearest neighbours."""

    with_one: NDArray[np.bool_]  # (N,)
    pairs: list[tuple[str, str]]  # names, each pair once, the first hundred


def near_duplicates(images: Images, positions: NDArray[np.int64], lists: Tensor) -> Twins:
    """Compares perceptual hashes of each image with those of its neighbours, as `polygrain inspect` does.

    Args:
        positions: (N,) of the images in their source.
        lists: (N, k) long, rows of the neighbours.
    """
    hashes = np.array([difference_hashes(images.decode(i)) for i in positions.tolist()], dtype=np.uint64)  # (N, 2)
    rows = lists.numpy()
    differing = np.ascontiguousarray(hashes[:, None] ^ hashes[rows])[..., None].view(np.uint8)  # (N, k, 2, 8)
    bits = np.unpackbits(differing, axis=-1).sum(-1)  # (N, k, 2)
    near = (bits[..., 0] <= NEAR_BITS) & (bits[..., 1] <= OTHER_BITS)
    i, at = np.nonzero(near)
    pairs = sorted({(min(a, b), max(a, b)) for a, b in zip(i.tolist(), rows[i, at].tolist(), strict=True)})
    names = [(images.name(int(positions[a])), images.name(int(positions[b]))) for a, b in pairs[:LISTED]]
    return Twins(near.any(1), names)
