"""Pictures that stand in two sets, told by their features."""

import torch
from torch import Tensor

TOLERANCE = 1e-5  # of the length of a vector: what the same picture may differ by in another batch


def shared(train: Tensor, val: Tensor) -> int:
    """How many rows of `val` (n, D) are also in `train` (N, D), up to float noise.

    Vectors that are near lie near along any direction, so only rows next to each other along a random one are compared.
    """
    train, val = train.cpu(), val.cpu()
    direction = torch.randn(train.shape[1], generator=torch.Generator().manual_seed(0))
    direction /= direction.norm()
    near = TOLERANCE * val.norm(dim=1)  # (n,)
    along, order = (train @ direction).sort()
    place, end = (torch.searchsorted(along, val @ direction + shift) for shift in (-near, near))
    asked, found = torch.arange(len(val)), 0
    while len(asked := asked[place[asked] < end[asked]]):
        same = (val[asked] - train[order[place[asked]]]).norm(dim=1) <= near[asked]
        found += int(same.sum())
        asked = asked[~same]
        place[asked] += 1
    return found
