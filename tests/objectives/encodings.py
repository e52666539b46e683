"""Random encodings, as an encoder would hand them to an objective."""

import torch

from polygrain.views import Encoding, View


def random_encodings(
    views: int, images: int, dim: int, *, patches: int = 4, strong: torch.Tensor | None = None
) -> list[Encoding]:
    def one() -> Encoding:
        no = torch.zeros(images, dtype=torch.bool)
        view = View(
            torch.zeros(images, 3, 8, 8),
            torch.zeros(images, 4),
            no,
            no if strong is None else strong,
            torch.arange(images),
        )
        return Encoding(
            view,
            torch.randn(images, dim),
            torch.randn(images, patches, dim),
            torch.zeros(images, patches, 2),
            torch.randn(images, dim),
        )

    return [one() for _ in range(views)]
