"""A vector for every image of the data set."""

import torch
from torch import Tensor, nn

from polygrain import distributed


class Bank(nn.Module):
    """The newest vectors of some views of every image, the same on all ranks; saved with the run.

    Args:
        views: how many vectors an image has.

    Buffers:
        rows: (views, images, D).
    """

    rows: Tensor

    def __init__(self, views: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("rows", torch.zeros(views, 0, dim))

    def allocate(self, images: int) -> None:
        self.rows = self.rows.new_zeros(self.rows.shape[0], images, self.rows.shape[2])

    @torch.no_grad()
    def write(self, image: Tensor, vectors: Tensor) -> None:
        """Keeps the vectors of the images of all ranks.

        Args:
            image: (B,) long, positions in the data set; equally many on every rank.
            vectors: (views, B, D).
        """
        rows = distributed.gather(vectors.to(self.rows.dtype).transpose(0, 1))  # (W B, views, D)
        self.rows.index_copy_(1, distributed.gather(image), rows.transpose(0, 1))
