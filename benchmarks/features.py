"""Features a second: polygrain's extraction against a plain timm loop over the same files, with and without the cache.

python -m benchmarks.features FOLDER [--encoder vit_tiny_patch16_224] [--size 224] [--images 256]
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from timm.data.transforms_factory import create_transform

from polygrain.data.sources import open_images
from polygrain.evaluate import cache
from polygrain.evaluate.features import Views
from polygrain.evaluate.models import open_model
from polygrain.evaluate.settings import FeatureSettings
from polygrain.parts.encoder import Encoder, EncoderSettings

BATCH = 64


def plain(model: torch.nn.Module, files: list[Path], size: int) -> torch.Tensor:
    transform = create_transform(size, crop_pct=224 / 256, interpolation="bicubic")
    rows = []
    with torch.no_grad():
        for start in range(0, len(files), BATCH):
            pixels = torch.stack([transform(Image.open(file).convert("RGB")) for file in files[start : start + BATCH]])
            rows.append(model(pixels))
    return torch.cat(rows)


def timed(function: Callable[[], torch.Tensor]) -> tuple[float, torch.Tensor]:
    start = time.process_time()
    rows = function()
    return time.process_time() - start, rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--encoder", default="vit_tiny_patch16_224")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--images", type=int, default=256)
    options = parser.parse_args()
    images = open_images(options.folder)
    count = min(options.images, len(images))
    files = [Path(options.folder) / images.name(i) for i in range(count)]
    encoder = Encoder(EncoderSettings(name=options.encoder)).eval()
    twin = timm.create_model(options.encoder, num_classes=0).eval()
    twin.load_state_dict(encoder.model.state_dict())
    model, resize = open_model(encoder), round(options.size * 256 / 224)
    with tempfile.TemporaryDirectory() as folder:
        settings = FeatureSettings(cache=folder, workers=0, batch_size=BATCH)

        def ours() -> torch.Tensor:
            return cache.features(model, Views(images, options.size, resize), np.arange(count), settings)[0].pooled

        plain(twin, files[:BATCH], options.size)  # warm-up
        by_timm, wanted = timed(lambda: plain(twin, files, options.size))
        by_us, found = timed(ours)
        from_disk, _ = timed(ours)
    print(
        f"{options.encoder}, {count} images at {options.size} px, {torch.get_num_threads()} thread(s): timm "
        f"{count / by_timm:.1f} images/s, polygrain {count / by_us:.1f} (ratio {by_timm / by_us:.2f}), from its cache "
        f"{count / from_disk:,.0f}; largest difference of a feature {(wanted - found).abs().max():.2g} "
        f"(features up to {wanted.abs().max():.2g})"
    )


if __name__ == "__main__":
    main()
