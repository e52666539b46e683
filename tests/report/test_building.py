"""The report as a whole: what is written of which images and models, and what is refused before the encoding."""

import re

import numpy as np
import pytest
import torch

from polygrain.data.photometric import Normalisation
from polygrain.parts.encoder import Encoder, EncoderSettings
from polygrain.report.building import write_model_report
from polygrain.report.settings import ReportSettings
from polygrain.weights.backbone import save_backbone

SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2}
SETTINGS = ReportSettings(workers=0, size=32, closeups=2, changed=10)


def vit(channels=3, **arguments):
    torch.manual_seed(0)
    settings = EncoderSettings(name="vit_tiny_patch16_224", channels=channels, arguments={**SMALL, **arguments})
    return Encoder(settings).eval()


def headings(path):
    return re.findall(r"<h2>(.*?)</h2>", path.read_text())


@pytest.mark.parametrize("channels", [1, 5])
def test_a_report_of_images_of_any_channels_has_every_section(tmp_path, channels):
    file, images, random = tmp_path / "vit.safetensors", tmp_path / "images", np.random.default_rng(0)
    save_backbone(file, vit(channels), normalisation=Normalisation((0.4,) * channels, (0.2,) * channels))
    images.mkdir()
    for i in range(22):
        np.save(images / f"{i}.npy", random.integers(0, 256, (channels, 32, 32), dtype=np.uint8))
    write_model_report([str(file)], images, tmp_path / "page.html", SETTINGS)
    assert {"Granularity profile", "Map", "Patches", "Attention", "Matches between two crops"} <= set(
        headings(tmp_path / "page.html")
    )
