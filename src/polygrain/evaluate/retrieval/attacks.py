"""What people do to a picture before they pass it on: the ways in which copies are made."""

import io
import math
import zlib
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont
from torch import Tensor

Attack = Callable[[Image.Image, np.random.Generator], Image.Image]

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
KEPT = 0.5  # share of the area that a crop keeps
QUALITY = 10  # of JPEG


def cropped(image: Image.Image, random: np.random.Generator, kept: float = KEPT) -> Image.Image:
    width, height = (max(1, round(side * math.sqrt(kept))) for side in image.size)
    left, top = random.integers(image.width - width + 1), random.integers(image.height - height + 1)
    return image.crop((int(left), int(top), int(left) + width, int(top) + height))


def compressed(image: Image.Image, random: np.random.Generator) -> Image.Image:
    file = io.BytesIO()
    image.save(file, format="JPEG", quality=QUALITY)
    with Image.open(file) as again:
        return again.convert("RGB")


def blurred(image: Image.Image, random: np.random.Generator) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(0.02 * min(image.size)))


def rotated(image: Image.Image, random: np.random.Generator) -> Image.Image:
    angle = float(random.uniform(10, 30) * random.choice([-1, 1]))
    return image.rotate(angle, Image.Resampling.BICUBIC)


def written_on(image: Image.Image, random: np.random.Generator) -> Image.Image:
    """Three words of random letters, white with a black edge, about a sixth of the picture high each."""
    image = image.copy()
    size = max(8, min(image.size) // 6)
    font, pen = ImageFont.load_default(size), ImageDraw.Draw(image)
    for _ in range(3):
        word = "".join(random.choice(list(LETTERS), 6))
        place = (int(random.integers(max(1, image.width // 2))), int(random.integers(max(1, image.height - size))))
        pen.text(place, word, fill="white", font=font, stroke_width=max(1, size // 16), stroke_fill="black")
    return image


def mirrored(image: Image.Image, random: np.random.Generator) -> Image.Image:
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def recoloured(image: Image.Image, random: np.random.Generator) -> Image.Image:
    """Brightness, contrast and saturation, each by a factor from 1/2 to 3/2."""
    for change in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = change(image).enhance(float(random.uniform(0.5, 1.5)))
    return image


def shrunk(image: Image.Image, random: np.random.Generator) -> Image.Image:
    """To a quarter of its sides and back."""
    small = image.resize((max(1, image.width // 4), max(1, image.height // 4)), Image.Resampling.BICUBIC)
    return small.resize(image.size, Image.Resampling.BICUBIC)


def strong(image: Image.Image, random: np.random.Generator) -> Image.Image:
    for change in (cropped, rotated, recoloured, written_on, compressed):
        image = change(image, random)
    return image


ATTACKS: dict[str, Attack] = {
    "crop": cropped,
    "jpeg": compressed,
    "blur": blurred,
    "rotation": rotated,
    "text": written_on,
    "mirror": mirrored,
    "colour": recoloured,
    "small": shrunk,
    "strong": strong,
}


def attacked(image: Tensor, name: str, *, seed: int, number: int) -> Tensor:
    """The copy of an image (3, H, W) uint8 that an attack makes; its numbers depend on seed, attack and image alone."""
    random = np.random.default_rng([seed, zlib.crc32(name.encode()), number])
    copy = ATTACKS[name](Image.fromarray(image.permute(1, 2, 0).numpy()), random)
    return torch.from_numpy(np.array(copy)).permute(2, 0, 1)
