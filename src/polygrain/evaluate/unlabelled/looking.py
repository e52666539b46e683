"""What a model makes of images, plain and changed: computed once, for all measures without labels."""

import hashlib
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from polygrain.data.centred import centred
from polygrain.data.cutting import cut
from polygrain.data.draws import draw
from polygrain.data.images import Images
from polygrain.data.photometric import Normalisation, normalise
from polygrain.data.sources import open_images
from polygrain.evaluate import cache
from polygrain.evaluate.features import Views, evaluating
from polygrain.evaluate.labelled import describe, named, preprocessing
from polygrain.evaluate.models import Model, open_model, pick_device
from polygrain.evaluate.readouts import IN_WORDS, Read, read_out
from polygrain.evaluate.result import versions
from polygrain.evaluate.settings.unlabelled import LookSettings
from polygrain.evaluate.unlabelled.changes import Change, draws, roll
from polygrain.evaluate.unlabelled.region import Agreement, Side, crop_agreement, patch_ranks
from polygrain.views import Crops, View

FEWEST = 20  # images that the measures need
SAMPLED = 16  # patches of each image that stand for it where all images are compared
BATCH = 64  # images whose patches are held at a time
SCALE, RECIPE = (0.25, 1.0), "moco2"  # of the random crops


class Opened(NamedTuple):
    """A model, images drawn from a source, and the plain vectors of those that can be decoded."""

    model: Model
    images: Images
    positions: NDArray[np.int64]  # (N,) in the source, in random order
    plain: Tensor  # (N, D)
    size: int
    facts: dict[str, Any]
    described: dict[str, Any]
    details: dict[str, Any]
    notes: tuple[str, ...]


class Regions(NamedTuple):
    """What the patches of M images said."""

    ranks: Tensor  # (M,) of the patches of each image
    largest_rank: int
    agreement: Agreement  # of the first two crops, each (M,)
    patches: Tensor  # (M, P, D) some of the plain image
    rolled: Tensor  # (M, P, D) at the same places, with the content shifted round and round
    places: Tensor  # (M, P, 2) row and column of these patches, 0 to 1
    grid: tuple[int, int]


class Looked(NamedTuple):
    """The first M images, seen changed."""

    views: Tensor  # (M, V, D) random crops in random colours
    changed: dict[str, Tensor]  # (M, D) by the name of the change
    regions: Regions


def open_and_draw(model: Any, data: Any, settings: LookSettings) -> Opened:
    """Opens both, draws the images and encodes them plainly.

    Raises:
        ValueError: when fewer than `FEWEST` images can be decoded, or something handed in cannot be used.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)  # of the weights of an untrained encoder
        opened = open_model(model)
    size = settings.size or opened.image_size
    images = open_images(data, opened.encoder.channels)
    positions = np.random.default_rng(settings.seed).permutation(len(images))[: settings.images]
    views = Views(images, size, settings.resize, opened.normalisation)
    seen, note = cache.features(opened, views, positions, settings)
    kept = seen.positions.numpy()
    if len(kept) < FEWEST:
        raise ValueError(f"{len(kept)} images of {named(data)} can be decoded; the measures need {FEWEST} or more")
    notes = [note] if note else []
    if lost := len(positions) - len(kept):
        notes.append(f"{lost} images cannot be decoded and are left out")
    return of_features(opened, views, kept, seen.pooled, settings, named(data))._replace(notes=tuple(notes))


def of_features(
    model: Model, views: Views, positions: NDArray[np.int64], plain: Tensor, settings: LookSettings, data: str
) -> Opened:
    """What `open_and_draw` gives, where the plain vectors (N, D) of the images at `positions` are there already."""
    facts = {
        "data": {"images": len(positions), "digest": digest(views.images, positions)},
        "preprocessing": preprocessing(views, model),
        "features": IN_WORDS[settings.readout] + ", float32",
        "settings": settings.of_protocol() | {"size": views.size},
    }
    described = describe(model) | {"dimensions": plain.shape[1]}
    details = {"data": data, "versions": versions()}
    return Opened(model, views.images, positions, plain, views.size, facts, described, details, ())


def digest(images: Images, positions: NDArray[np.int64]) -> str:
    """Short text that changes with the images that were drawn."""
    return hashlib.blake2b(images.content().encode() + positions.tobytes(), digest_size=16).hexdigest()


@torch.no_grad()
def look(opened: Opened, settings: LookSettings, changes: dict[str, Change]) -> Looked:
    """Shows the model the first images in random crops and under each of `changes`."""
    count = min(settings.changed, len(opened.positions))
    encoder, device = opened.model.encoder, pick_device(settings.device)
    encoder.to(device)
    parts = []
    bar = tqdm(total=count, desc="changed images", unit="image", disable=not sys.stderr.isatty(), leave=False)
    with evaluating(encoder), bar:
        for start in range(0, count, BATCH):
            some = opened.positions[start : min(start + BATCH, count)].tolist()
            parts.append(_look_at(opened, some, settings, changes, device))
            bar.update(len(some))
    return _joined(parts)


def _look_at(
    opened: Opened, some: Sequence[int], settings: LookSettings, changes: dict[str, Change], device: str
) -> Looked:
    images, normalisation = [opened.images.decode(i) for i in some], opened.model.normalisation
    request = Crops(
        name="unlabelled", count=settings.views, size=opened.size, scale=SCALE, recipes=(RECIPE,),
        blur_scale=opened.size / 224,
    )  # fmt: skip

    def encode(pixels: Tensor) -> Read:
        seen = read_out(opened.model.encoder, pixels.to(device), settings.readout)
        return Read(seen.vectors.cpu(), seen.patches.cpu(), seen.grid)

    def changed(name: str, change: Change) -> Read:
        shown = change(stack, draws(settings.seed, name, some))
        normalise(shown, normalisation)
        return encode(shown)

    numbers = [
        draw((request,), *image.shape[1:], seed=settings.seed, epoch=0, image=i, channels=len(image))
        for i, image in zip(some, images, strict=True)
    ]
    crops = cut(images, numbers, normalisation)[request.name]
    seen = [encode(crop.pixels) for crop in crops]
    stack = torch.stack([_plain(image, opened.size, settings.resize) for image in images])
    plain = changed("plain", lambda s, _: s.clone())
    rolled = changed("roll", roll)
    at, places = _sample(plain.grid, some, settings.seed)
    rows = torch.arange(len(some))[:, None]
    a, b = (_side(crop, read) for crop, read in zip(crops[:2], seen[:2], strict=True))
    regions = Regions(
        ranks=patch_ranks(plain.patches),
        largest_rank=min(plain.patches.shape[1] - 1, plain.patches.shape[2]),
        agreement=crop_agreement(a, b),
        patches=plain.patches[rows, at],
        rolled=rolled.patches[rows, at],
        places=places,
        grid=plain.grid,
    )
    vectors = {name: changed(name, change).vectors for name, change in changes.items()}
    return Looked(torch.stack([read.vectors for read in seen], 1), vectors, regions)


def _plain(image: Tensor, size: int, resize: int | None) -> Tensor:
    """The plain view of an image before it is normalised: whole numbers 0..255."""
    as_it_is = Normalisation((0.0,) * len(image), (1.0,) * len(image))
    return (centred(image, size, as_it_is, resize) * 255).round()


def _side(crop: View, read: Read) -> Side:
    return Side(read.patches, read.grid, crop.box, crop.flipped)


def _sample(grid: tuple[int, int], some: Sequence[int], seed: int) -> tuple[Tensor, Tensor]:
    """Some patches of each image (B, P), and where they lie in the grid (B, P, 2), 0 to 1."""
    rows, columns = grid
    orders = [random.permutation(rows * columns)[:SAMPLED] for random in draws(seed, "patches", some)]
    at = torch.from_numpy(np.stack(orders))
    return at, torch.stack([(at // columns + 0.5) / rows, (at % columns + 0.5) / columns], 2)


def _joined(parts: Sequence[Looked]) -> Looked:
    seen = [part.regions for part in parts]
    agreement = zip(*(one.agreement for one in seen), strict=True)
    regions = Regions(
        ranks=torch.cat([one.ranks for one in seen]),
        largest_rank=seen[0].largest_rank,
        agreement=Agreement._make(torch.cat(column) for column in agreement),
        patches=torch.cat([one.patches for one in seen]),
        rolled=torch.cat([one.rolled for one in seen]),
        places=torch.cat([one.places for one in seen]),
        grid=seen[0].grid,
    )
    changed = {name: torch.cat([part.changed[name] for part in parts]) for name in parts[0].changed}
    return Looked(torch.cat([part.views for part in parts]), changed, regions)
