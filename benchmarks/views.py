"""Views per second and core: the 14 views of Mugs from JPEGs of 500x375, against torchvision and timm on Pillow images.

uv run python benchmarks/views.py [--images FOLDER_OR_TAR] [--json FILE]
"""

import argparse
import io
import json
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter
from timm.data.auto_augment import rand_augment_transform
from timm.data.random_erasing import RandomErasing
from torch import Tensor
from torchvision import transforms as T

from polygrain.data.cutting import cut
from polygrain.data.decoding import decode
from polygrain.data.draws import Draws, draw
from polygrain.data.photometric import IMAGENET
from polygrain.data.sources import open_images
from polygrain.views import Crops

SIZE = (500, 375)  # about the mean of ImageNet
STRONG: dict[str, Any] = {"strong_recipe": "mugs_strong", "strong_probability": 0.5}
MUGS = (
    Crops(name="teacher", count=2, size=224, scale=(0.25, 1.0), recipes=("dino_1", "dino_2")),
    Crops(
        name="student",
        count=2,
        size=224,
        scale=(0.25, 1.0),
        recipes=("dino_1", "dino_2"),
        strong_together=True,
        **STRONG,
    ),
    Crops(name="small", count=10, size=96, scale=(0.05, 0.25), recipes=("dino_local",), **STRONG),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", help="folder or tar of photographs; without it, polygrain's rendered scenes")
    parser.add_argument("--count", type=int, default=64, help="images (default 64)")
    parser.add_argument("--batch", type=int, default=16, help="images cut together (default 16)")
    parser.add_argument("--repeats", type=int, default=5, help="the fastest of so many counts (default 5)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    files = jpegs(arguments.images, arguments.count)
    batches = [files[i : i + arguments.batch] for i in range(0, len(files), arguments.batch)]
    stages = ("decode", "draw", "cut", "baseline")
    totals = dict.fromkeys(stages, 0.0)
    baseline = Baseline()
    for n, batch in enumerate(batches):
        first = n * arguments.batch
        images = [decode(file) for file in batch]
        draws = draw_all(images, first)
        work: dict[str, Callable[[], object]] = {
            "decode": lambda batch=batch: [decode(file) for file in batch],
            "draw": lambda images=images, first=first: draw_all(images, first),
            "cut": lambda images=images, draws=draws: cut(images, draws, IMAGENET),
            "baseline": lambda batch=batch, first=first: baseline.batch(batch, seed=first),
        }
        fastest = dict.fromkeys(stages, float("inf"))
        for _ in range(arguments.repeats):
            for stage in stages:
                fastest[stage] = min(fastest[stage], seconds(work[stage]))
        for stage in stages:
            totals[stage] += fastest[stage]
    report({stage: 1000 * total / len(files) for stage, total in totals.items()}, files, arguments)


def report(milliseconds: dict[str, float], files: Sequence[bytes], arguments: argparse.Namespace) -> None:
    ours = sum(milliseconds[stage] for stage in ("decode", "draw", "cut"))
    views = sum(crops.count for crops in MUGS)
    kilobytes = sum(map(len, files)) / len(files) / 1000
    print(f"{len(files)} JPEGs of {SIZE[0]}x{SIZE[1]}, {kilobytes:.0f} kB on average; {views} views each; CPU time")
    rows = [("polygrain", ours), *((f"  {stage}", milliseconds[stage]) for stage in ("decode", "draw", "cut"))]
    rows.append(("torchvision, timm on Pillow", milliseconds["baseline"]))
    print(f"{'':30}{'ms an image':>12}{'views/s/core':>14}{'times':>8}")
    for name, value in rows:
        print(f"{name:30}{value:12.2f}{1000 * views / value:14.0f}{milliseconds['baseline'] / value:8.2f}")
    if arguments.json:
        figures = {
            "milliseconds_per_image": milliseconds | {"polygrain": ours},
            "views_per_second_per_core": 1000 * views / ours,
            "speedup": milliseconds["baseline"] / ours,
            "images": len(files),
            "batch": arguments.batch,
            "torch": torch.__version__,
        }
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


def seconds(work: Callable[[], object]) -> float:
    """CPU time of this thread, so that other work on the machine counts as little as may be."""
    start = time.thread_time()
    work()
    return time.thread_time() - start


def jpegs(source: str | None, count: int) -> list[bytes]:
    images = open_images(source or f"scenes:{count}:512:0")
    files = []
    for i in range(count):
        image = Image.fromarray(images.decode(i % len(images)).permute(1, 2, 0).numpy())
        buffer = io.BytesIO()
        image.resize(SIZE, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
        files.append(buffer.getvalue())
    return files


def draw_all(images: Sequence[Tensor], first: int) -> list[Draws]:
    return [draw(MUGS, *image.shape[1:], seed=0, epoch=0, image=first + i) for i, image in enumerate(images)]


class Baseline:
    """The paper's pipeline from its usual parts: one Pillow image at a time, every crop by itself."""

    def __init__(self) -> None:
        jitter = T.RandomApply([T.ColorJitter(0.4, 0.4, 0.2, 0.1)], p=0.8)
        flip_and_jitter = [T.RandomHorizontalFlip(), jitter, T.RandomGrayscale(p=0.2)]
        tensor = [T.ToTensor(), T.Normalize(IMAGENET.mean, IMAGENET.std)]
        augment = rand_augment_transform("rand-m9-mstd0.5-inc1", {"translate_const": 100, "img_mean": (124, 116, 104)})
        erase = RandomErasing(0.25, mode="pixel", device="cpu")

        def blur(p: float) -> Any:
            return T.RandomApply([T.Lambda(gaussian_blur)], p=p)

        large = T.RandomResizedCrop(224, (0.25, 1), interpolation=T.InterpolationMode.BICUBIC)
        small = T.RandomResizedCrop(96, (0.05, 0.25), interpolation=T.InterpolationMode.BICUBIC)
        solarise = T.RandomSolarize(128, p=0.2)
        self.first = T.Compose([large, *flip_and_jitter, blur(1.0), *tensor])
        self.second = T.Compose([large, *flip_and_jitter, blur(0.1), solarise, *tensor])
        self.weak_small = T.Compose([small, *flip_and_jitter, blur(0.5), *tensor])
        before, after = [T.RandomHorizontalFlip(), augment], [T.ToTensor(), erase, tensor[1]]
        self.strong_large = T.Compose([*before, large, *after])
        self.strong_small = T.Compose([*before, small, *after])

    def batch(self, files: Sequence[bytes], seed: int) -> list[Tensor]:
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002 (timm draws from it)
        torch.manual_seed(seed)
        images = [self.views(Image.open(io.BytesIO(file)).convert("RGB")) for file in files]
        return [torch.stack(crops) for crops in zip(*images, strict=True)]

    def views(self, image: Image.Image) -> list[Tensor]:
        weak = random.random() < 0.5
        student = (self.first, self.second) if weak else (self.strong_large, self.strong_large)
        small = [self.weak_small if random.random() < 0.5 else self.strong_small for _ in range(10)]
        return [pipeline(image) for pipeline in (self.first, self.second, *student, *small)]


def gaussian_blur(image: Image.Image) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(random.uniform(0.1, 2.0)))


if __name__ == "__main__":
    main()
