"""Random views as a loader would hand them to a method."""

from collections.abc import Sequence

import numpy as np
import torch

from polygrain.views import Crops, View


def random_views(
    crops: Sequence[Crops], images: int, seed: int = 0, dtype: torch.dtype = torch.float32
) -> dict[str, list[View]]:
    generator = torch.Generator().manual_seed(seed)

    def one(request: Crops) -> View:
        size = request.size
        corner = torch.rand(images, 2, generator=generator) * 40
        sides = torch.rand(images, 2, generator=generator) * 60 + 30
        coin = torch.rand(2, images, generator=generator) < 0.5
        return View(
            torch.randn(images, 3, size, size, generator=generator, dtype=dtype),
            torch.cat([corner, sides], 1),
            coin[0],
            coin[1],
            torch.arange(images),
            _masks(request, images, seed),
        )

    return {request.name: [one(request) for _ in range(request.count)] for request in crops}


def _masks(request: Crops, images: int, seed: int) -> torch.Tensor | None:
    if request.mask is None:
        return None
    random = np.random.default_rng(seed)
    return torch.from_numpy(np.stack([request.mask(random) for _ in range(images)]))


def _rows(field: torch.Tensor | None, images: slice) -> torch.Tensor | None:
    return None if field is None else field[images]


def part(views: dict[str, list[View]], images: slice) -> dict[str, list[View]]:
    """Some of the images of these views."""
    return {
        name: [View(*(_rows(field, images) for field in view)) for view in several] for name, several in views.items()
    }
