"""What `benchmarks.comparison` measures on frozen features: kNN, a linear classifier, linear segmentation."""

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as resizing

from polygrain.data.decoding import decode
from polygrain.data.photometric import IMAGENET
from polygrain.data.sources import Images, open_images
from polygrain.evaluate.features import extract
from polygrain.evaluate.knn import knn_scores
from polygrain.evaluate.linear import linear_probe
from polygrain.evaluate.metrics import confusion_matrix, segmentation_scores
from polygrain.evaluate.pixels import RawPixels
from polygrain.evaluate.segmentation.patches import Segmented, patch_shares, segment, train_patch_head
from polygrain.evaluate.settings.heads import HeadRecipe
from polygrain.parts.encoder import Encoder

BATCH = 32
WHOLE = 48  # pixels: of the whole image when it is evaluated
SCENE = (120, 160)  # pixels: of a whole street scene when it is segmented
PROBE = HeadRecipe(
    learning_rates=(0.02, 0.05, 0.2, 0.5, 2.0, 5.0, 20.0), augmentation="none", epochs=50, head_batch_size=256
)


def scores(
    encoder: Encoder | RawPixels, train: Images, val: Images, coarse_sets: Sequence[str] | None, camvid: str | None
) -> dict[str, dict[str, float]]:
    """kNN, linear probe and segmentation on frozen features.

    Args:
        coarse_sets: the same images with other labels, to train and to test on.
        camvid: folder of street scenes with masks.
    """
    bank = extract(encoder, train, size=WHOLE, resize=WHOLE, batch_size=BATCH).pooled
    queries = extract(encoder, val, size=WHOLE, resize=WHOLE, batch_size=BATCH).pooled
    fine, fine_val = labels(train), labels(val)
    found = {"knn fine": knn_scores(bank, fine, queries, fine_val, classes=1 + int(fine.max()))["k=20"]}
    if coarse_sets:
        coarse, coarse_val = (labels(open_images(data)) for data in coarse_sets)
        found["knn coarse"] = knn_scores(bank, coarse, queries, coarse_val, classes=1 + int(coarse.max()))["k=20"]
    probed = linear_probe(
        {"pooled": bank}, fine, {"pooled": queries}, fine_val, classes=1 + int(fine.max()), recipe=PROBE
    )
    found["linear fine"] = {**probed.scores(0), "learning_rate": float(probed.name)}
    if camvid:
        found["segmentation"] = segmentation(encoder, Path(camvid))
    return found


def labels(images: Images) -> Tensor:
    found = images.labels()
    assert found is not None
    return torch.from_numpy(found)


def segmentation(encoder: Encoder | RawPixels, folder: Path) -> dict[str, float]:
    """Mean IoU on another drive than those of the training scenes, with its interval over resampled scenes."""
    about = json.loads((folder / "classes.json").read_text())
    ignore = int(about["ignore_index"])
    split = json.loads((folder / "splits.json").read_text())["by_drive"]
    train, val = (scenes(encoder, folder, split[part]) for part in ("train", "val"))
    shares = patch_shares(train.masks, train.grid, ignore, ignore=ignore)
    head = train_patch_head(
        train.patches, shares, steps=500, batch_size=32, learning_rate=1e-2, weight_decay=1e-3, seed=0
    )
    each = []
    for patches, mask in zip(val.patches.split(1), val.masks.split(1), strict=True):
        predicted = segment(head, patches, val.grid, (mask.shape[1], mask.shape[2]))
        each.append(confusion_matrix(predicted, mask, ignore, ignore=ignore))
    confusions = torch.stack(each)  # (n, C, C)
    draws = np.random.default_rng(0).integers(0, len(each), (1000, len(each)))
    resampled = [segmentation_scores(confusions[rows].sum(0))["miou"] for rows in torch.from_numpy(draws)]
    low, high = np.percentile(resampled, [2.5, 97.5])
    return {**segmentation_scores(confusions.sum(0)), "miou_low": float(low), "miou_high": float(high)}


@torch.no_grad()
def scenes(encoder: Encoder | RawPixels, folder: Path, names: Sequence[str]) -> Segmented:
    """Patch vectors of whole scenes, and their masks as they are."""
    encoder.eval()
    mean, std = (torch.tensor(value).view(-1, 1, 1) for value in IMAGENET)
    pixels, masks = [], []
    for archive in sorted({name.partition(":")[0] for name in names}):
        with tarfile.open(folder / archive) as tar:
            for name in (name.partition(":")[2] for name in names if name.startswith(f"{archive}:")):
                image = decode(tar.extractfile(f"images/{name}.jpg").read())  # type: ignore[union-attr]
                pixels.append((resizing.resize(image, list(SCENE), antialias=True).float() / 255 - mean) / std)
                mask = tar.extractfile(f"masks/{name}.png").read()  # type: ignore[union-attr]
                masks.append(torch.from_numpy(np.array(Image.open(io.BytesIO(mask)))))
    seen = [encoder.features(torch.stack(pixels[i : i + 16])) for i in range(0, len(pixels), 16)]
    return Segmented(torch.cat([some.patches for some in seen]), torch.stack(masks), seen[0].grid)
