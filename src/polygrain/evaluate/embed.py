"""Vectors for those who want them: of images, regions or groups, streamed into one file."""

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from polygrain.data.centred import centred_box
from polygrain.data.images import Images
from polygrain.data.sources import open_images
from polygrain.evaluate.features import ImageFeatures, Views, encoded
from polygrain.evaluate.labelled import describe, named, preprocessing
from polygrain.evaluate.models import Model, open_model, pick_device
from polygrain.evaluate.readouts import IN_WORDS
from polygrain.evaluate.result import versions
from polygrain.evaluate.settings.embedding import EmbedSettings
from polygrain.evaluate.writing import Columns, Rows, check_out, write_rows
from polygrain.parts.kmeans import kmeans

FITTED = 65536  # vectors at most that clusters are fitted to
ITERATIONS, STARTS = 20, 3


class Written(NamedTuple):
    """What came of it."""

    files: tuple[Path, ...]
    rows: int
    notes: tuple[str, ...]


class Measured(Images):
    """Another source that remembers how large its images are, also when workers decode them."""

    def __init__(self, whole: Images) -> None:
        super().__init__(len(whole))
        self.whole, self.channels, self.classes = whole, whole.channels, whole.classes
        self.sides = torch.zeros(len(whole), 2, dtype=torch.int32)  # (n, 2) height, width
        self.sides.share_memory_()  # type: ignore[no-untyped-call] # torch gives it no types

    def name(self, i: int) -> str:
        return self.whole.name(i)

    def load(self, i: int) -> Tensor:
        image = self.whole.load(i)
        self.sides[i] = torch.tensor(image.shape[-2:])
        return image


def embed(model: Any, data: Any, out: str | Path, settings: EmbedSettings) -> Written:
    """Writes the vectors of all images of a source, batch by batch: what is held does not grow with their number.

    Args:
        model: what `open_model` takes; `data`: what `open_images` takes.
        out: a `.parquet` file, or a `.npy` file, beside which a `.csv` names its rows and a `.json` says what it is.

    Raises:
        ValueError: for another kind of file, or more clusters than images; see `encoded` for the rest.
    """
    out = Path(out)
    check_out(out)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)  # of the weights of an untrained encoder
        opened = open_model(model)
    images = Measured(open_images(data, opened.encoder.channels))
    if settings.groups is not None and settings.groups > len(images):
        raise ValueError(f"groups is {settings.groups}, more than there are images ({len(images):,})")
    size = settings.size or opened.image_size
    views = Views(images, size, settings.resize, opened.normalisation, settings.aspect)
    facts = _facts(opened, data, views, settings)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".embed-") as folder:
        rows = _rows(opened, views, settings, Path(folder))
        files, count = write_rows(out, rows, _columns(settings), facts)
    broken = len(images.broken)
    return Written(files, count, (f"{broken} images cannot be decoded and are left out",) if broken else ())


def _columns(settings: EmbedSettings) -> Columns:
    """Columns beside the vector."""
    more: dict[str, Columns] = {
        "pooled": {},
        "region": {"row": "int32", "column": "int32", **dict.fromkeys(("top", "left", "height", "width"), "float32")},
        "group": {"group": "int32", "distance": "float32"},
    }
    return {"image": "string", **more[settings.level]}


def _facts(model: Model, data: Any, views: Views, settings: EmbedSettings) -> dict[str, Any]:
    of_patches = "patches of the last block or stage after the final norm, one row each"
    return {
        "level": settings.level,
        "vector": of_patches if settings.level == "region" else IN_WORDS[settings.readout],
        "model": describe(model),
        "data": named(data),
        "preprocessing": preprocessing(views, model),
        "versions": versions(),
    }


def _rows(model: Model, views: Views, settings: EmbedSettings, folder: Path) -> Iterator[Rows]:
    if settings.level == "region":
        return _regions(model, views, settings)
    if settings.level == "group":
        return _grouped(model, views, settings, folder)
    return (
        Rows(part.pooled.numpy(), {"image": _names(views.images, part.positions)})
        for part in _encoded(model, views, settings)
    )


def _encoded(model: Model, views: Views, settings: EmbedSettings) -> Iterator[ImageFeatures]:
    regions = settings.level == "region"
    at_once = 1 if regions and views.aspect == "native" else settings.batch_size  # of several sizes otherwise
    positions = np.arange(len(views.images))
    batches = [positions[start : start + at_once] for start in range(0, len(positions), at_once)]
    return encoded(
        model.encoder,
        views,
        batches,
        readout=settings.readout,
        workers=settings.workers,
        device=pick_device(settings.device),
        patches=regions,
    )


def _names(images: Images, positions: Tensor, times: int = 1) -> list[str]:
    return [name for i in positions.tolist() for name in [images.name(i)] * times]


def _regions(model: Model, views: Views, settings: EmbedSettings) -> Iterator[Rows]:
    for part in _encoded(model, views, settings):
        if not len(part.positions):
            continue
        assert part.patches is not None
        rows, columns = part.grid
        boxes = np.concatenate([region_boxes(views, int(i), part.grid, model.encoder.stride) for i in part.positions])
        beside: dict[str, Any] = {"image": _names(views.images, part.positions, rows * columns)}
        row, column = np.divmod(np.arange(rows * columns, dtype=np.int32), columns)
        beside |= {"row": np.tile(row, len(part.positions)), "column": np.tile(column, len(part.positions))}
        beside |= {name: boxes[:, k] for k, name in enumerate(("top", "left", "height", "width"))}
        yield Rows(part.patches.flatten(0, 1).numpy(), beside)


def region_boxes(views: Views, i: int, grid: tuple[int, int], stride: int) -> NDArray[np.float32]:
    """Top, left, height and width (rows * columns, 4) of every patch of image i, in its own pixels, row-major."""
    images = views.images
    assert isinstance(images, Measured)
    multiple = stride if views.aspect == "native" else None
    height, width = images.sides[i].tolist()
    box, _ = centred_box(height, width, views.size, views.resize, multiple)
    rows, columns = grid
    sides = box.height / rows, box.width / columns
    row, column = np.divmod(np.arange(rows * columns), columns)
    same = [np.full(rows * columns, side) for side in sides]
    return np.stack([box.top + row * sides[0], box.left + column * sides[1], *same], axis=1).astype(np.float32)


def _grouped(model: Model, views: Views, settings: EmbedSettings, folder: Path) -> Iterator[Rows]:
    """Vectors wait on disk until all are there; clusters are fitted to a seeded sample of their directions."""
    file, positions, dim = folder / "pooled", [], 0
    with file.open("wb") as waiting:
        for part in _encoded(model, views, settings):
            waiting.write(part.pooled.numpy().tobytes())
            positions.append(part.positions)
            dim = part.pooled.shape[1]
    where = torch.cat(positions)
    vectors = np.memmap(file, np.float32, "r", shape=(len(where), dim))
    sample = np.arange(len(where))
    if len(where) > FITTED:
        sample = np.sort(np.random.default_rng(settings.seed).choice(len(where), FITTED, replace=False))
    directions = F.normalize(torch.from_numpy(np.array(vectors[sample])), dim=1)
    count = settings.groups or max(1, round(len(where) ** 0.5))
    centroids = kmeans(directions, count, iterations=ITERATIONS, redos=STARTS, seed=settings.seed).centroids
    for start in range(0, len(where), settings.batch_size):
        some = np.array(vectors[start : start + settings.batch_size])
        distance, group = torch.cdist(F.normalize(torch.from_numpy(some), dim=1), centroids).min(1)
        beside: Mapping[str, Any] = {
            "image": _names(views.images, where[start : start + settings.batch_size]),
            "group": group.int().numpy(),
            "distance": distance.numpy(),
        }
        yield Rows(some, beside)
