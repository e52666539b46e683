"""From what a person chose to a run that can start: data, encoder, method, optimizer, checkpoints."""

import dataclasses
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
import yaml
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from torch.utils.data import DataLoader, Sampler

from polygrain.data.batch import Batch
from polygrain.data.loading import ViewBatches
from polygrain.data.photometric import Normalisation
from polygrain.data.sources import Images, open_images
from polygrain.methods import METHODS
from polygrain.methods.adding import LocalSettings
from polygrain.methods.base import Method, Settings
from polygrain.parts.batch_norm import synchronise_batch_norm
from polygrain.parts.encoder import Encoder, EncoderSettings
from polygrain.schedules import RunLength, Time
from polygrain.train import checkpoints
from polygrain.train.logging import Log
from polygrain.train.optimizers import build_optimizer
from polygrain.train.order import Key, Order
from polygrain.train.pretrain import Run, seed_everything, train
from polygrain.train.probes import Probe
from polygrain.train.scaling import SMALL, Choice, choose_method, choose_run, look_at, table
from polygrain.train.settings import PretrainSettings
from polygrain.weights.backbone import save_backbone
from polygrain.weights.starting import start_from


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
    local: LocalSettings | None = None,
    images: Images | None = None,
) -> Result:
    """Trains a backbone on unlabelled images and writes it to `settings.out`.

    Args:
        method: hyperparameters of `settings.method` that differ from the paper's, or from those chosen for the data.
        local: the local objective to add, with its weight.
        images: already opened images, instead of `settings.data`.

    Raises:
        ValueError: at a choice that cannot work, before anything is trained.
    """
    folder = Path(settings.out)
    prepare_folder(folder, settings.resume)
    images = open_images(settings.data) if images is None else images
    fabric = launch(settings)
    workers = set_threads(settings, fabric)

    given = {name: tuple(value) if isinstance(value, list) else value for name, value in (method or {}).items()}
    resolved, values, choices = resolve(settings, given, images, gpu=fabric.device.type == "cuda")
    if choices:
        say(
            fabric,
            f"Chosen for {len(images):,} images (say --scale paper, or name a value, to override):\n{table(choices)}",
        )
    run = start(resolved, METHODS[resolved.method](**values), local, images, fabric, workers)
    write_config(folder, resolved, values, local, fabric)
    say(fabric, f"{describe(run.method)}; {len(images):,} images, {run.length.steps:,} steps; run folder {folder}")
    record = train(run)
    return Result(folder, record, run.method)


def set_threads(settings: PretrainSettings, fabric: Fabric) -> int:
    """Shares the cores between the training process and its workers; returns the number of workers.

    Threads that wait for a core which a worker holds cost far more than they bring.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cores = max(1, cores // max(1, fabric.world_size // settings.nodes))
    workers = max(0, min(8, cores // 2)) if settings.workers is None else settings.workers
    threads = settings.threads
    if threads is None and fabric.device.type == "cpu":
        threads = max(1, cores - workers)
    if threads is not None:
        torch.set_num_threads(threads)
    return workers


def say(fabric: Fabric, line: str) -> None:
    if fabric.global_rank == 0:
        print(line, file=sys.stderr, flush=True)


def prepare_folder(folder: Path, resume: bool) -> None:
    """Makes the folder of a new run, or checks that there is one to resume.

    Raises:
        ValueError: when it holds something already, or nothing to resume from.
    """
    if resume:
        if checkpoints.newest(folder) is None:
            raise ValueError(
                f"nothing to resume: {folder}/checkpoints holds no checkpoint; leave out --resume to start"
            )
    elif (
        folder.exists() and (not folder.is_dir() or any(folder.iterdir())) and os.environ.get("LOCAL_RANK", "0") == "0"
    ):
        raise ValueError(f"output folder {folder} is in use; choose another --out, or --resume to continue its run")
    folder.mkdir(parents=True, exist_ok=True)


def launch(settings: PretrainSettings) -> Fabric:
    """Starts the processes of the run; gradients are averaged over ranks, buffers are kept equal by design."""
    cuda = settings.accelerator in ("auto", "cuda") and torch.cuda.is_available()
    bf16 = settings.precision == "bf16" or (settings.precision == "auto" and cuda and torch.cuda.is_bf16_supported())
    many = settings.devices * settings.nodes > 1
    strategy: Any = settings.strategy
    if strategy == "auto" and (many or int(os.environ.get("WORLD_SIZE", "1")) > 1):
        strategy = DDPStrategy(broadcast_buffers=False, gradient_as_bucket_view=True)
    fabric = Fabric(
        accelerator="cpu" if settings.accelerator == "auto" and not cuda else settings.accelerator,
        devices=settings.devices,
        num_nodes=settings.nodes,
        strategy=strategy,
        precision="bf16-mixed" if bf16 else "32-true",
    )
    fabric.launch()
    return fabric


def resolve(
    settings: PretrainSettings, given: Mapping[str, Any], images: Images, gpu: bool
) -> tuple[PretrainSettings, dict[str, Any], list[Choice]]:
    """Fills in what was left open, and lists what was chosen for the data rather than taken from the paper."""
    if settings.method not in METHODS:
        raise ValueError(f"unknown method {settings.method!r}; choose from {', '.join(METHODS)}")
    facts = look_at(images, gpu)
    run = choose_run(facts, dataclasses.asdict(settings))
    settings = dataclasses.replace(settings, **{choice.name: choice.value for choice in run})
    assert settings.batch_size is not None and settings.epochs is not None and settings.encoder is not None
    Order(images=len(images), batch_size=settings.batch_size, seed=0)  # refuses a batch larger than the data
    with torch.device("meta"):
        encoder = Encoder(encoder_settings(settings, pretrained=False))
    if settings.position is None:
        settings = dataclasses.replace(settings, position="dino" if encoder.family == "vit" else "timm")
    if settings.scale == "paper" or facts.images > SMALL:
        return settings, dict(given), run
    chosen = choose_method(
        METHODS[settings.method],
        facts,
        batch_size=cast(int, settings.batch_size),
        epochs=cast(int, settings.epochs),
        patch=encoder.stride,
        small_crops=not encoder.has_batch_norm,
        large_size=given.get("large_size"),
    )
    chosen = [choice for choice in chosen if choice.name not in given]
    return settings, {**{choice.name: choice.value for choice in chosen}, **given}, run + chosen


def encoder_settings(settings: PretrainSettings, pretrained: bool) -> EncoderSettings:
    assert settings.encoder is not None
    return EncoderSettings(
        name=settings.encoder,
        pretrained=pretrained,
        position=settings.position or "timm",
        arguments=dict(settings.encoder_args),
        checkpointing=settings.checkpointing,
    )


def start(
    settings: PretrainSettings,
    recipe: Settings,
    local: LocalSettings | None,
    images: Images,
    fabric: Fabric,
    workers: int,
) -> Run:
    """Builds the networks, the same on every rank, and continues from the newest checkpoint when asked to."""
    assert settings.batch_size is not None and settings.epochs is not None
    folder = Path(settings.out)
    order = Order(
        images=len(images),
        batch_size=settings.batch_size,
        seed=settings.seed,
        rank=fabric.global_rank,
        ranks=fabric.world_size,
        accumulate=settings.accumulate,
    )
    length = Time(step=0, steps_per_epoch=order.steps_per_epoch, epochs=settings.epochs)
    encoder = untrained(settings)
    method = recipe.build(encoder)
    if local is not None and local.weight > 0:
        local.add_to(method)
    for crops in method.crops:
        encoder.check_size(crops.size)
    if settings.start_from is not None:
        report = start_from(settings.start_from, method, allow_missing=settings.allow_missing)
        say(fabric, str(report))
    if fabric.world_size > 1:
        synchronise_batch_norm(method)
    if settings.compile:
        method.student.compile()

    optimization = recipe.optimization(
        RunLength(len(images), settings.batch_size, settings.epochs, order.steps_per_epoch)
    )
    bare = build_optimizer(method, optimization)
    module, optimizer = fabric.setup(method, bare)
    if settings.resume:
        length = length._replace(step=restore(folder, method, optimizer))
    stop = min(length.steps, settings.stop_after_steps or length.steps)
    normalisation = Normalisation(settings.mean, settings.std)
    probe = None
    every = settings.probe_every_epochs
    every = max(1, settings.epochs // 10) if every is None else every
    if every and images.labels() is not None:
        size = max(crops.size for crops in method.crops)
        probe = Probe(images, size, normalisation, every * order.steps_per_epoch)

    def write_backbone(step: int) -> None:
        save_backbone(
            folder / "backbone.safetensors",
            method.backbone,
            normalisation=normalisation,
            extra={
                "method": settings.method,
                "step": step,
                "images": len(images),
                "crop_size": max(crops.size for crops in method.crops),
            },
        )

    return Run(
        folder=folder,
        fabric=fabric,
        method=method,
        module=module,
        optimizer=cast(torch.optim.Optimizer, optimizer),
        optimization=optimization,
        order=order,
        batches=batches(settings, images, method, order, length.step, stop, normalisation, fabric, workers),
        probe=probe,
        log=Log(folder, stop, length.step, settings.loggers, active=fabric.global_rank == 0),
        length=length,
        stop_step=stop,
        log_every=settings.log_every,
        checkpoint_every=settings.checkpoint_every_epochs * order.steps_per_epoch,
        keep=settings.keep,
        saved=dataclasses.asdict(settings),
        write_backbone=write_backbone,
    )


def untrained(settings: PretrainSettings) -> Encoder:
    """The encoder that a run of these settings begins with; the random stream goes on to its heads."""
    seed_everything(settings.seed, -1, 0)
    return Encoder(encoder_settings(settings, pretrained=False))


def batches(
    settings: PretrainSettings,
    images: Images,
    method: Method,
    order: Order,
    start_step: int,
    stop_step: int,
    normalisation: Normalisation,
    fabric: Fabric,
    workers: int,
) -> Iterator[Batch]:
    """This rank's batches, from the step where the run starts."""
    dataset = ViewBatches(images, method.crops, seed=settings.seed, normalisation=normalisation)
    keys = Keys(order, start_step, stop_step)
    loader: DataLoader[Batch] = DataLoader(
        dataset,
        batch_sampler=keys,
        num_workers=workers,
        collate_fn=_same,
        pin_memory=fabric.device.type == "cuda",
        prefetch_factor=4 if workers else None,
        multiprocessing_context="forkserver" if workers and fabric.device.type == "cuda" else None,
    )
    return iter(loader)


class Keys(Sampler[list[Key]]):
    """An order as the batch sampler of a loader."""

    def __init__(self, order: Order, start_step: int, stop_step: int) -> None:
        self._order, self._start, self._stop = order, start_step, stop_step

    def __iter__(self) -> Iterator[list[Key]]:
        return self._order.batches(self._start, self._stop)

    def __len__(self) -> int:
        return (self._stop - self._start) * self._order.accumulate


def _same(batch: Any) -> Any:
    return batch


def restore(folder: Path, method: Method, optimizer: Any) -> int:
    """Loads the newest checkpoint and returns the step to continue with."""
    path = checkpoints.newest(folder)
    assert path is not None
    state = checkpoints.load(path)
    method.load_state_dict(state["method"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])


def write_config(
    folder: Path, settings: PretrainSettings, values: Mapping[str, Any], local: LocalSettings | None, fabric: Fabric
) -> None:
    """The resolved choices, as a file that `--config` reads."""
    if fabric.global_rank != 0:
        return
    resolved = {
        **dataclasses.asdict(settings),
        settings.method: dataclasses.asdict(cast(Any, METHODS[settings.method](**values))),
    }
    resolved["resume"] = False
    if local is not None and local.weight > 0:
        resolved["local"] = dataclasses.asdict(local)
    (folder / "config.yaml").write_text(yaml.safe_dump(_plain(resolved), sort_keys=False))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value


def describe(method: Method) -> str:
    million = sum(parameter.numel() for parameter in method.student.parameters()) / 1e6
    name = method.student.settings.name
    terms = ", ".join(f"{weight:g} {name}" for name, weight in method.weights.items())
    return f"{name}: {million:.1f} M parameters; loss = {terms}"
