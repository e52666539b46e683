"""The ways in which a file gets into polygrain from the command line."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from polygrain.cli import main


def photos(folder: Path, count: int = 4) -> Path:
    folder.mkdir(exist_ok=True)
    for i in range(count):
        pixels = np.random.default_rng(i).integers(0, 255, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


def complaint(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What is told of a refused command: one line, after which the exit code is 2."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line]
    told = [line for line in lines if line.startswith("polygrain ")]
    assert len(told) == 1 and lines[-1] == told[0], lines
    return told[0]


def through(door: str, file: Path, folder: Path) -> list[object]:
    """A command line that hands over a file of weights."""
    images = photos(folder / "photos")
    tiny = ["--encoder", "vit_mini_64", "--encoder-args", "{depth: 1, embed_dim: 32, num_heads: 2}", "--workers", 0]
    run = ["pretrain", images, "--out", folder / "run", "--epochs", 1, "--batch-size", 2, *tiny]
    return {
        "from": [*run, "--from", file],
        "evaluate": ["evaluate", "knn", file, "--data", images, "--val", images],
        "export": ["export", file, "--to", "torch", "--out", folder / "out.pth"],
    }[door]


DOORS = ("from", "evaluate", "export")
