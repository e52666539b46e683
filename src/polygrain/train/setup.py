"""A run from its first word to its last: folder, processes, choices, what to resume from, training."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from lightning_fabric import Fabric

from polygrain.data.inspection import inspect_images
from polygrain.data.quarantine import leave_out
from polygrain.data.sources import Images, open_images
from polygrain.methods.base import Method
from polygrain.parts.encoder import Encoder
from polygrain.train import checkpoints
from polygrain.train.building import describe, start
from polygrain.train.launching import first_process, launch, say, set_threads
from polygrain.train.lock import lock
from polygrain.train.pretrain import train
from polygrain.train.resolving import config, resolve
from polygrain.train.resume import check_same_images, check_same_run, circumstances, no_longer_exact
from polygrain.train.scaling import table
from polygrain.train.settings import PretrainSettings

SAMPLE = 128  # images to look at before training


class Result(NamedTuple):
    """What a finished run leaves."""

    out: Path
    record: Mapping[str, float]  # the last line of the log
    method: Method

    @property
    def encoder(self) -> Encoder:
        return self.method.backbone


def pretrain(
    settings: PretrainSettings,
    method: Mapping[str, Any] | None = None,
    added: Mapping[str, Mapping[str, Any]] | None = None,
    images: Images | None = None,
) -> Result:
    """Trains a backbone on unlabelled images and writes it to `settings.out`.

    Args:
        method: hyperparameters of `settings.method` that differ from the paper's, or from those chosen for the data.
        added: objectives to add, by their names in `ADDABLE`, each with the settings that differ from its defaults.
        images: already opened images, instead of `settings.data`.

    Raises:
        ValueError: at a choice that cannot work, before anything is trained.
    """
    folder = Path(settings.out)
    prepare_folder(folder, settings.resume)
    held = lock(folder) if first_process() else None
    try:
        return _pretrain(folder, settings, {settings.method: method or {}, **(added or {})}, images)
    finally:
        if held is not None:
            held.close()


def _pretrain(
    folder: Path,
    settings: PretrainSettings,
    chosen: Mapping[str, Mapping[str, Any]],
    images: Images | None,
) -> Result:
    images = open_images(settings.data, settings.channels) if images is None else images
    if settings.quarantine is not None:
        images = leave_out(images, Path(settings.quarantine))
    fabric = launch(settings)
    workers = set_threads(settings, fabric)
    state = newest_state(folder, fabric) if settings.resume else None
    if state is None:
        look_briefly(images, settings, fabric)
    if state is not None:
        settings = inherit(settings, state["choices"])

    given = {
        name: {field: tuple(value) if isinstance(value, list) else value for field, value in values.items()}
        for name, values in chosen.items()
    }
    resolved, values, choices = resolve(settings, given, images, gpu=fabric.device.type == "cuda")
    if choices:
        say(
            fabric,
            f"Chosen for {len(images):,} images (say --scale paper, or name a value, to override):\n{table(choices)}",
        )
    saved = {
        "choices": config(resolved, values),
        "data": {"images": len(images), "fingerprint": images.fingerprint()},
        "circumstances": circumstances(fabric.world_size),
    }
    if state is not None:
        check_same_run(state["choices"], saved["choices"])
        check_same_images(state["data"], saved["data"])
        if changed := no_longer_exact(state["circumstances"], saved["circumstances"]):
            say(fabric, f"The run continues, but not exact to the last bit: {'; '.join(changed)}")
    run = start(resolved, values, images, fabric, workers, saved, state)
    if fabric.global_rank == 0:
        (folder / "config.yaml").write_text(yaml.safe_dump(saved["choices"], sort_keys=False))
    say(fabric, f"{describe(run.method)}; {len(images):,} images, {run.length.steps:,} steps; run folder {folder}")
    record = train(run)
    return Result(folder, record, run.method)


def prepare_folder(folder: Path, resume: bool) -> None:
    """Makes the folder of a new run.

    Raises:
        ValueError: when it holds something already.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"output folder {folder} is a file; choose another --out")
    if not resume and first_process() and folder.exists() and any(folder.iterdir()):
        raise ValueError(f"output folder {folder} is in use; choose another --out, or --resume to continue its run")
    folder.mkdir(parents=True, exist_ok=True)


def look_briefly(images: Images, settings: PretrainSettings, fabric: Fabric) -> None:
    """Says what a sample of the images is like.

    Raises:
        ValueError: when more of them than `max_bad_fraction` cannot be decoded.
    """
    found = inspect_images(images, sample=SAMPLE, seed=settings.seed)
    if found.bad_fraction > settings.max_bad_fraction:
        raise ValueError(
            f"{found.summary()}; that is more than --max-bad-fraction {settings.max_bad_fraction:g}. See "
            "`polygrain inspect DATA --quarantine LIST`, then train with --quarantine LIST"
        )
    say(fabric, found.summary())


def newest_state(folder: Path, fabric: Fabric) -> Mapping[str, Any] | None:
    """What to resume from, None for a run that has not saved anything yet.

    Raises:
        ValueError: when there are checkpoints, but none is sound, or the folder holds something else than a run.
    """
    if fabric.global_rank == 0:
        checkpoints.remove_unfinished(folder)
    state, complaints = checkpoints.load_newest(folder, set_aside=fabric.global_rank == 0)
    for complaint in complaints:
        say(fabric, complaint)
    if state is not None:
        return state
    if complaints:
        raise ValueError(
            f"no checkpoint in {folder} is sound; what is left of them ends in .broken. Start again with another --out"
        )
    say(fabric, f"Nothing to resume in {folder} yet: starting from step 0")
    return None


def inherit(settings: PretrainSettings, saved: Mapping[str, Any]) -> PretrainSettings:
    """What was left open takes the value it had, not one chosen anew on what may be another machine."""
    open_names = [
        field.name
        for field in dataclasses.fields(settings)
        if getattr(settings, field.name) is None and saved.get(field.name) is not None
    ]
    return dataclasses.replace(
        settings, **{name: saved[name] for name in open_names if name not in ("stop_after_steps", "threads", "workers")}
    )
