"""Whole pictures as squares, and the vectors by which copies are found (DINO, `eval_copy_detection.py`)."""

import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as pixels
from tqdm import tqdm

from polygrain.data.photometric import Normalisation
from polygrain.evaluate.features import default_workers, evaluating
from polygrain.evaluate.loading import from_workers
from polygrain.evaluate.models import Model, pick_device
from polygrain.evaluate.pixels import RawPixels
from polygrain.evaluate.readouts import read_out
from polygrain.evaluate.retrieval.attacks import attacked
from polygrain.evaluate.retrieval.hunting import Picture
from polygrain.evaluate.settings.retrieval import CopiesSettings
from polygrain.parts.encoder import Encoder

POWER, LEAST = 4, 1e-6  # of the generalised mean


class Squeezed(Dataset[tuple[Tensor, bool]]):
    """Pictures as squares, normalised, and whether each could be decoded."""

    def __init__(self, pictures: Sequence[Picture], size: int, normalisation: Normalisation, seed: int) -> None:
        self.pictures, self.size, self.normalisation, self.seed = pictures, size, normalisation, seed

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, i: int) -> tuple[Tensor, bool]:
        images, position, attack = self.pictures[i]
        image, read = images.read(position)
        if attack is not None:
            image = attacked(image, attack, seed=self.seed, number=position)
        return squeezed(image, self.size, self.normalisation), read == position


class Seen(NamedTuple):
    """What was made of n pictures."""

    ours: Tensor  # (n, 2 D)
    pixels: Tensor  # (n, 768)
    read: Tensor  # (n,) bool, whether it could be decoded


def squeezed(image: Tensor, size: int, normalisation: Normalisation) -> Tensor:
    """An image (3, H, W) uint8, all of it, as a square (3, size, size)."""
    square = pixels.resize(image, [size, size], interpolation=InterpolationMode.BICUBIC, antialias=True)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in normalisation)
    normed: Tensor = (square.float() / 255 - mean) / std
    return normed


def class_and_gem(encoder: Encoder | RawPixels, views: Tensor) -> Tensor:
    """(B, 2 D): the class token, or the pooled vector where there is none, and the generalised mean of the patches."""
    has_class = isinstance(encoder, Encoder) and encoder.family == "vit" and encoder.model.cls_token is not None
    seen = read_out(encoder, views, "cls1" if has_class else "pooled")
    gem = seen.patches.clamp(min=LEAST).pow(POWER).mean(dim=1).pow(1 / POWER)
    return torch.cat([seen.vectors, gem], dim=1)


@torch.no_grad()
def see(model: Model, pictures: Sequence[Picture], settings: CopiesSettings) -> Seen:
    """Raises ValueError when the encoder cannot take squares of that size, or a vector is not finite."""
    encoder, size, device = model.encoder, settings.size or model.image_size, pick_device(settings.device)
    encoder.check_size(size)
    encoder.to(device)
    baseline = RawPixels(normalisation=model.normalisation)
    loader: Any = DataLoader(
        Squeezed(pictures, size, model.normalisation, settings.seed),
        batch_size=settings.batch_size,
        num_workers=default_workers() if settings.workers is None else settings.workers,
    )
    parts = []
    with evaluating(encoder):
        for views, read in tqdm(
            from_workers(loader), desc="pictures", total=len(loader), disable=not sys.stderr.isatty(), leave=False
        ):
            ours = class_and_gem(encoder, views.to(device)).float().cpu()
            parts.append(Seen(ours, baseline.features(views).pooled, read))
    seen = Seen(*(torch.cat(field) for field in zip(*parts, strict=True)))
    if bad := (~torch.isfinite(seen.ours).all(dim=1)).nonzero().flatten().tolist():
        images, position, _ = pictures[bad[0]]
        raise ValueError(
            f"the encoder's features of {images.name(position)!r} are not finite; are its weights damaged?"
        )
    return seen
