"""Features on disk, so that images are encoded once: by chunks, which several ranks share out among themselves, and
which an interrupted extraction need not do again."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from polygrain import distributed
from polygrain.evaluate.features import ImageFeatures, Views, encoded, joined
from polygrain.evaluate.models import Model, pick_device
from polygrain.evaluate.settings import FeatureSettings
from polygrain.evaluate.settings.unlabelled import LookSettings
from polygrain.weights.durable import write_durably

CHUNK = 4096  # images
Keeping = FeatureSettings | LookSettings


def features(model: Model, views: Views, positions: NDArray[np.int64], settings: Keeping) -> tuple[ImageFeatures, str]:
    """Features of the images at `positions`, from the cache as far as they are there, and a line that says so.

    The key of a chunk holds the weights, the state of the data, the positions and the preprocessing. Sources whose
    state cannot be known (datasets in Python) are encoded each time.

    Raises:
        ValueError: when several ranks have no cache to exchange features by; see `encoded` for the rest.
    """
    views.check()
    folder = None if settings.cache == "none" else folder_of(settings)
    state = views.images.state()
    if distributed.world_size() > 1 and (folder is None or state is None):
        raise ValueError("several processes exchange features through the cache; name a folder and image files")
    chunks = [positions[start : start + CHUNK] for start in range(0, len(positions), CHUNK)]
    device = pick_device(settings.device)
    if folder is None or state is None:
        batches = [part for chunk in chunks for part in _batches(chunk, settings.batch_size)]
        parts = encoded(
            model.encoder, views, batches, readout=settings.readout, workers=settings.workers, device=device
        )
        return joined(list(parts)), ""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{_key(model, views, state, chunk, settings)}.safetensors" for chunk in chunks]
    found = {i: part for i, file in enumerate(files) if (part := _read(file)) is not None}
    # by place, whatever the others have written meanwhile
    mine = range(distributed.rank(), len(chunks), distributed.world_size())
    missing = [i for i in mine if i not in found]
    batches = [part for i in missing for part in _batches(chunks[i], settings.batch_size)]
    stream = encoded(model.encoder, views, batches, readout=settings.readout, workers=settings.workers, device=device)
    for i in missing:
        part = joined([next(stream) for _ in _batches(chunks[i], settings.batch_size)])
        tensors = {"positions": part.positions, "pooled": part.pooled}
        content = save(tensors)
        write_durably(files[i], lambda file, content=content: file.write(content))  # type: ignore[misc]
        found[i] = part
    distributed.barrier()
    for i, file in enumerate(files):
        if i not in found and (part_of_other := _read(file)) is not None:
            found[i] = part_of_other
    note = f"features of {sum(len(chunks[i]) for i in found if i not in missing):,} images came from {folder}"
    return joined([found[i] for i in range(len(chunks))]), note if len(missing) < len(chunks) else ""


def folder_of(settings: Keeping) -> Path:
    """Where features are kept."""
    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    chosen = settings.cache or os.environ.get("POLYGRAIN_CACHE") or home / "polygrain"
    return Path(chosen).expanduser() / "features"


def _batches(chunk: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    return [chunk[start : start + size] for start in range(0, len(chunk), size)]


def _key(model: Model, views: Views, state: str, chunk: NDArray[np.int64], settings: Keeping) -> str:
    encoder: Any = model.encoder
    fields = [
        model.weights_sha256,
        repr(getattr(encoder, "settings", type(encoder).__name__)),
        [views.size, views.resize, views.normalisation, views.aspect, views.whole_at, views.images.channels],
        state,
        settings.readout,
        torch.__version__,
    ]
    return hashlib.blake2b(json.dumps(fields).encode() + chunk.tobytes(), digest_size=20).hexdigest()


def _read(file: Path) -> ImageFeatures | None:
    """A chunk that is there and whole; a torn one counts as missing and is written again."""
    if not file.is_file():
        return None
    try:
        tensors = load_file(file)
    except SafetensorError:
        return None
    return ImageFeatures(tensors["positions"], tensors["pooled"], None, (0, 0))
