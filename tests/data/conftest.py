"""Photographs of the shared image sets."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor


@pytest.fixture(scope="session")
def photographs(real_images: Path) -> list[Image.Image]:
    """Twelve, of three sets and many shapes."""
    found = []
    for name, every in (("caltech", 90), ("imagenette", 290), ("coco", 39)):
        with tarfile.open(real_images / name / "train.tar") as tar:
            members = [member for member in tar if member.name.endswith(".jpg")][::every][:4]
            found += [Image.open(io.BytesIO(tar.extractfile(m).read())).convert("RGB") for m in members]
    return found


def pixels(image: Image.Image) -> Tensor:
    """uint8 (3, H, W)."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
