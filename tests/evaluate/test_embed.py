import csv
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans
from torch import Tensor

from polygrain.cli import main
from polygrain.data.centred import centred
from polygrain.data.images import Images
from polygrain.data.photometric import Normalisation
from polygrain.evaluate.embed import embed
from polygrain.evaluate.features import extract
from polygrain.evaluate.pixels import RawPixels
from polygrain.evaluate.settings.embedding import EmbedSettings
from tests.evaluate.fakes import Coloured

PLAIN = Normalisation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


class Ramps(Images):
    """Images of several sides whose red tells the row and whose green tells the column, in steps of one pixel."""

    SIDES = ((48, 80), (100, 64), (64, 64), (72, 72), (40, 250), (190, 20))

    def __init__(self) -> None:
        super().__init__(len(self.SIDES))

    def name(self, i: int) -> str:
        return f"ramps/{i}.png"

    def load(self, i: int) -> Tensor:
        height, width = self.SIDES[i]
        row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        return torch.stack([row, column, torch.zeros_like(row)]).to(torch.uint8)


def options(**more):
    return EmbedSettings(workers=0, device="cpu", **more)


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("aspect", ["square", "native"])
def test_the_box_of_a_region_is_where_its_pixels_come_from(tmp_path, aspect):
    """Ramps say where every pixel was; the mean over a patch is the centre of its box, within resampling."""
    images = Ramps()
    raw = RawPixels(patch_size=8, image_size=32, normalisation=PLAIN)
    settings = options(level="region", size=32, aspect=aspect)
    embed(raw, images, tmp_path / "x.npy", settings)
    rows = read(tmp_path / "x.csv")
    assert {row["image"] for row in rows} == {images.name(i) for i in range(len(images))}
    for i in range(len(images)):
        mine = [row for row in rows if row["image"] == images.name(i)]
        pixels = centred(images.load(i), 32, PLAIN, None, 8 if aspect == "native" else None) * 255
        for row in mine:
            r, c = int(row["row"]), int(row["column"])
            patch = pixels[:2, 8 * r : 8 * r + 8, 8 * c : 8 * c + 8].mean((1, 2)).tolist()
            centre = [
                float(row["top"]) + float(row["height"]) / 2 - 0.5,
                float(row["left"]) + float(row["width"]) / 2 - 0.5,
            ]
            assert patch == pytest.approx(centre, abs=1.0), (i, row)


def test_npy_and_parquet_hold_the_vectors_of_plain_extraction(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    images = Coloured([0, 1, 2, 3, 4, 5, 6], broken_at=(2,))
    seen = extract(RawPixels(), images, size=16)
    for name in ("x.npy", "x.parquet"):
        written = embed(RawPixels(), images, tmp_path / name, options(size=16, batch_size=3))
        assert written.rows == 6
        assert written.notes == ("1 images cannot be decoded and are left out",)
    names = [f"picture {i}" for i in (0, 1, 3, 4, 5, 6)]
    table = parquet.read_table(tmp_path / "x.parquet")
    assert np.array_equal(np.load(tmp_path / "x.npy"), seen.pooled.numpy())
    assert np.array_equal(np.stack(table["vector"].to_numpy()), seen.pooled.numpy())
    assert [row["image"] for row in read(tmp_path / "x.csv")] == table["image"].to_pylist() == names
    told = json.loads((tmp_path / "x.json").read_text())
    assert (told["level"], told["rows"], told["preprocessing"]["crop"]) == ("pooled", 6, "centre, 16 px")
    assert json.loads(table.schema.metadata[b"polygrain"])["model"]["weights_sha256"]


def test_regions_are_the_patches_in_raster_order(tmp_path):
    images = Coloured([0, 1, 2], size=32)
    embed(RawPixels(patch_size=8), images, tmp_path / "x.npy", options(level="region", size=32, batch_size=2))
    patches = extract(RawPixels(patch_size=8), images, size=32, patches=True).patches
    assert np.array_equal(np.load(tmp_path / "x.npy"), patches.flatten(0, 1).numpy())
    places = [(row["image"], int(row["row"]), int(row["column"])) for row in read(tmp_path / "x.csv")]
    assert places == [(f"picture {i}", r, c) for i in range(3) for r in range(4) for c in range(4)]


def test_groups_are_those_of_scikit_learn_where_they_are_plain_to_see(tmp_path):
    labels = [0, 1, 2, 3] * 10
    embed(RawPixels(), Coloured(labels), tmp_path / "x.npy", options(level="group", groups=4, size=16, batch_size=7))
    rows = read(tmp_path / "x.csv")
    vectors = F.normalize(torch.from_numpy(np.load(tmp_path / "x.npy")), dim=1).numpy()
    theirs = KMeans(4, n_init=5, random_state=0).fit(vectors)
    pairs = {(int(row["group"]), int(group)) for row, group in zip(rows, theirs.labels_, strict=True)}
    assert len(pairs) == 4
    distances = np.linalg.norm(vectors - theirs.cluster_centers_[theirs.labels_], axis=1)
    assert [float(row["distance"]) for row in rows] == pytest.approx(distances.tolist(), abs=1e-4)


def test_what_fails_on_the_way_leaves_the_older_files_alone(tmp_path):
    embed(RawPixels(), Coloured([0, 1]), tmp_path / "x.npy", options(size=16))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    broken = RawPixels()
    broken.std[0] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        embed(broken, Coloured([0, 1, 2]), tmp_path / "x.npy", options(size=16))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--out", "x.csv"], "x.csv ends in .csv; wanted .parquet or .npy"),
        (["--out", "nowhere/x.npy"], "there is no folder nowhere"),
        (["--out", "x.npy", "--groups", "4"], "level pooled has none; use --level group"),
        (["--out", "x.npy", "--level", "group", "--groups", "99"], "groups is 99, more than there are images (20)"),
        (["--out", "x.npy", "--level", "patch"], "--level cannot be 'patch'; wanted: pooled, region, group"),
        (["--out", "x.npy", "--level", "region", "--readout", "cls1"], "regions are patches"),
    ],
)
def test_a_mistake_is_told_in_one_line(tmp_path, monkeypatch, capsys, arguments, told):
    monkeypatch.chdir(tmp_path)
    assert main(["embed", "scenes:20:64", "--model", "pixels", *arguments]) == 2
    assert told in capsys.readouterr().err


def test_the_command_writes_what_it_says(tmp_path, capsys):
    out = tmp_path / "regions.npy"
    assert main(["embed", "scenes:5:64", "--model", "pixels", "--level", "region", "--out", str(out)]) == 0
    assert "320 vectors" in capsys.readouterr().out
    assert np.load(out).shape == (320, 192)
