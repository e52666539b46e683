"""From resolved choices to a run that can start: encoder, method, optimizer, loader, and the state to go on from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch import nn

from polygrain.data.loading import ViewBatches
from polygrain.data.photometric import Normalisation
from polygrain.data.recipes import switched_off_in
from polygrain.data.sources import Images
from polygrain.methods.adding import mix
from polygrain.methods.base import Method
from polygrain.objectives.base import Objective
from polygrain.parts.batch_norm import synchronise_batch_norm
from polygrain.parts.encoder import Encoder
from polygrain.schedules import RunLength, Time
from polygrain.train.alarm import FEATURES, Alarm
from polygrain.train.embedding import Embedder
from polygrain.train.keeping import Keeper
from polygrain.train.launching import say
from polygrain.train.loader import load
from polygrain.train.logging import Log
from polygrain.train.optimizers import build_optimizer
from polygrain.train.order import Order
from polygrain.train.pretrain import Run, seed_everything
from polygrain.train.probes import Probe
from polygrain.train.ranks import Pulse
from polygrain.train.resolving import additions, encoder_settings, recipe_of
from polygrain.train.settings import PretrainSettings
from polygrain.weights.backbone import save_backbone
from polygrain.weights.starting import start_from


def start(
    settings: PretrainSettings,
    values: Mapping[str, Mapping[str, Any]],
    images: Images,
    fabric: Fabric,
    workers: int,
    saved: Mapping[str, Any],
    state: Mapping[str, Any] | None,
) -> Run:
    """Builds the networks, the same on every rank, and fills them with the state to resume from, if there is one.

    Args:
        values: hyperparameters of the method and of what is added to it, by name.
        saved: stored in each checkpoint.
        state: of the checkpoint to resume from.
    """
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
    recipe = recipe_of(settings, values)
    method = recipe.build(encoder)
    mix(method, [*additions(settings, values).values()], settings.without)
    method.prepare(len(images))
    for crops in method.crops:
        encoder.check_size(crops.size)
    check_batch(method, order)
    if settings.start_from is not None and state is None:
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
    if state is not None:
        method.load_state_dict(state["method"])
        optimizer.load_state_dict(state["optimizer"])
        length = length._replace(step=int(state["step"]))
    stop = min(length.steps, settings.stop_after_steps or length.steps)
    assert settings.mean is not None and settings.std is not None
    normalisation = Normalisation(settings.mean, settings.std)
    if off := switched_off_in(method.crops, settings.channels):
        say(fabric, f"Not for images of {settings.channels} channels, hence left out: {', '.join(off)}")
    probe = None
    every = settings.probe_every_epochs
    every = max(1, settings.epochs // 10) if every is None else every
    if every and images.labels() is not None:
        size = max(crops.size for crops in method.crops)
        probe = Probe(images, size, normalisation, every * order.steps_per_epoch)

    def write_backbone(into: Path, step: int) -> None:
        save_backbone(
            into / "backbone.safetensors",
            method.backbone,
            normalisation=normalisation,
            extra={
                "method": settings.method,
                "step": step,
                "images": len(images),
                "crop_size": max(crops.size for crops in method.crops),
            },
        )

    views = ViewBatches(images, method.crops, seed=settings.seed, normalisation=normalisation)
    log = Log(folder, stop, length.step, settings.loggers, active=fabric.global_rank == 0)
    return Run(
        folder=folder,
        fabric=fabric,
        method=method,
        module=module,
        optimizer=cast(torch.optim.Optimizer, optimizer),
        optimization=optimization,
        order=order,
        batches=load(
            views,
            order,
            start_step=length.step,
            stop_step=stop,
            workers=workers,
            timeout=settings.worker_timeout_seconds,
            max_bad_fraction=settings.max_bad_fraction,
            cuda=fabric.device.type == "cuda",
        ),
        embedder=Embedder(
            method=method,
            views=views,
            fabric=fabric,
            batch_size=settings.batch_size // settings.accumulate,
            workers=workers,
            timeout=settings.worker_timeout_seconds,
        ),
        probe=probe,
        log=log,
        alarm=Alarm(FEATURES | method.dead_values(), length.steps),
        keeper=Keeper(
            folder,
            every_steps=[
                steps
                for steps in (
                    settings.checkpoint_every_steps,
                    (settings.checkpoint_every_epochs or 0) * order.steps_per_epoch,
                )
                if steps
            ],
            every_minutes=settings.checkpoint_every_minutes,
            keep=settings.keep,
            write_backbone=write_backbone,
            say=log.say,
        ),
        pulse=Pulse(folder, settings.timeout_seconds),
        length=length,
        stop_step=stop,
        log_every=settings.log_every,
        keep_going=settings.keep_going,
        saved=saved,
    )


def check_batch(method: Method, order: Order) -> None:
    """Refuses batches in which a statistic over images has nothing to go over.

    Raises:
        ValueError: naming the objective, or batch norm.
    """
    images = order.batch_size // order.accumulate
    reasons = [
        f"{name} takes the variance over images"
        for name, objective in method.objectives.items()
        if images < cast(Objective, objective).least_images
    ]
    if images < 2 and any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in method.modules()):
        reasons.append("batch norm takes its statistics over images")
    if reasons:
        raise ValueError(
            f"{reasons[0]}, and a batch has {images} ({order.batch_size} over {order.accumulate} accumulated); "
            "raise --batch-size to 2 or more for each accumulated batch"
        )


def untrained(settings: PretrainSettings) -> Encoder:
    """The encoder that a run of these settings begins with; the random stream goes on to its heads."""
    seed_everything(settings.seed, -1, 0)
    return Encoder(encoder_settings(settings, pretrained=False))


def describe(method: Method) -> str:
    million = sum(parameter.numel() for parameter in method.student.parameters()) / 1e6
    name = method.student.settings.name
    terms = ", ".join(f"{weight:g} {name}" for name, weight in method.weights.items())
    return f"{name}: {million:.1f} M parameters; loss = {terms}"
