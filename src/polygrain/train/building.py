"""From resolved choices to a run that can start: encoder, method, optimizer, loader, and the state to go on from."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch import nn

from polygrain.data.loading import ViewBatches
from polygrain.data.measuring import measure_normalisation
from polygrain.data.photometric import IMAGENET, Normalisation
from polygrain.data.recipes import switched_off_in
from polygrain.data.sources import Images
from polygrain.methods import METHODS
from polygrain.methods.adding import ADDABLE, Addition, mix
from polygrain.methods.base import Method, Settings
from polygrain.objectives.base import Objective
from polygrain.parts.batch_norm import synchronise_batch_norm
from polygrain.parts.encoder import Encoder, EncoderSettings
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
from polygrain.train.scaling import SMALL, Choice, choose_method, choose_run, look_at
from polygrain.train.settings import PretrainSettings
from polygrain.weights.backbone import save_backbone
from polygrain.weights.starting import start_from

Values = dict[str, dict[str, Any]]  # hyperparameters of the method and of what is added to it, by name


def resolve(
    settings: PretrainSettings, given: Mapping[str, Mapping[str, Any]], images: Images, gpu: bool
) -> tuple[PretrainSettings, Values, list[Choice]]:
    """Fills in what was left open, and lists what was chosen for the data rather than taken from the paper.

    Args:
        given: hyperparameters that are not open, of the method and of each objective to add, by name.
    """
    check_names(settings.method, given)
    given = with_classes(settings.method, given, images)
    facts = look_at(images, gpu)
    run = choose_run(facts, dataclasses.asdict(settings))
    settings = dataclasses.replace(settings, **{choice.name: choice.value for choice in run})
    assert settings.batch_size is not None and settings.epochs is not None and settings.encoder is not None
    Order(images=len(images), batch_size=settings.batch_size, seed=0)  # refuses a batch larger than the data
    with torch.device("meta"):
        encoder = Encoder(encoder_settings(settings, pretrained=False))
    settings, measured = with_normalisation(settings, images)
    run += measured
    if settings.position is None:
        settings = dataclasses.replace(settings, position="dino" if encoder.family == "vit" else "timm")
    if settings.scale == "paper" or facts.images > SMALL:
        return settings, {name: dict(values) for name, values in given.items()}, run
    resolved: Values = {}
    for name, values in given.items():
        chosen = choose_method(
            METHODS[name] if name == settings.method else ADDABLE[name],
            facts,
            batch_size=cast(int, settings.batch_size),
            epochs=cast(int, settings.epochs),
            patch=encoder.stride,
            small_crops=name == settings.method and not encoder.has_batch_norm,
            large_size=values.get("large_size"),
        )
        chosen = [choice for choice in chosen if choice.name not in values]
        resolved[name] = {**{choice.name: choice.value for choice in chosen}, **values}
        run += chosen if name == settings.method else [c._replace(name=f"{name}.{c.name}") for c in chosen]
    return settings, resolved, run


def check_names(method: str, given: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuses a method and objectives to add that nobody knows.

    Raises:
        ValueError: with the names there are.
    """
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; choose from {', '.join(METHODS)}")
    for name in given:
        if name != method and name not in ADDABLE:
            raise ValueError(f"cannot add {name!r}; what can be added is {', '.join(ADDABLE)}")


def with_classes(
    method: str, given: Mapping[str, Mapping[str, Any]], images: Images
) -> Mapping[str, Mapping[str, Any]]:
    """The number of classes, for a method that learns from labels.

    Raises:
        ValueError: when such a method finds an image without a label, or more classes than were given.
    """
    if not any(field.name == "classes" for field in dataclasses.fields(cast(Any, METHODS[method]))):
        return given
    labels = images.labels()
    without = len(images) if labels is None else int((labels < 0).sum())
    if labels is None or without:
        raise ValueError(
            f"method {method} learns from labels; {without:,} of {len(images):,} images have none: put the images of "
            "each class into a folder of their own, or choose a method that needs no labels"
        )
    found = int(labels.max()) + 1
    values = {"classes": max(2, found), **given[method]}
    if (values["classes"] or found) < found:
        raise ValueError(f"classes is {values['classes']}; the labels of these images go up to {found - 1}")
    return {**given, method: values}


def recipe_of(settings: PretrainSettings, values: Mapping[str, Mapping[str, Any]]) -> Settings:
    return METHODS[settings.method](**values[settings.method])


def additions(settings: PretrainSettings, values: Mapping[str, Mapping[str, Any]]) -> dict[str, Addition]:
    """What is to be added, by name."""
    return {name: ADDABLE[name](**given) for name, given in values.items() if name != settings.method}


def with_normalisation(settings: PretrainSettings, images: Images) -> tuple[PretrainSettings, list[Choice]]:
    """Mean and std: as given, ImageNet's for RGB, otherwise measured."""
    if settings.mean is not None and settings.std is not None:
        return settings, []
    if settings.channels == 3:
        mean, std, chosen = *IMAGENET, []
    else:
        mean, std = measure_normalisation(images, seed=settings.seed)
        reason = "measured on a sample of your images"
        chosen = [Choice(name, _rounded(v), reason) for name, v in (("mean", mean), ("std", std))]
    return dataclasses.replace(settings, mean=settings.mean or mean, std=settings.std or std), chosen


def _rounded(values: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(round(value, 3) for value in values)


def encoder_settings(settings: PretrainSettings, pretrained: bool) -> EncoderSettings:
    assert settings.encoder is not None
    return EncoderSettings(
        name=settings.encoder,
        pretrained=pretrained,
        position=settings.position or "timm",
        channels=settings.channels,
        arguments=dict(settings.encoder_args),
        checkpointing=settings.checkpointing,
    )


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


def config(settings: PretrainSettings, values: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The resolved choices, as `--config` reads them."""
    resolved = {
        **dataclasses.asdict(settings),
        settings.method: dataclasses.asdict(cast(Any, recipe_of(settings, values))),
        "resume": False,
        "stop_after_steps": None,
    }
    for name, addition in additions(settings, values).items():
        if addition.weight > 0:
            resolved[name] = dataclasses.asdict(cast(Any, addition))
    return cast(dict[str, Any], _plain(resolved))


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
