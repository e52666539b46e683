"""What the loader hands to the loop."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from polygrain.views import View


class Batch(NamedTuple):
    """Views of a batch of images, and what is known of the images."""

    views: Mapping[str, Sequence[View]]  # by name of the crop request
    labels: Tensor | None  # (B,) long, for the probe and for methods that need them; -1 where an image has none
    image: Tensor  # (B,) long, position in the dataset
