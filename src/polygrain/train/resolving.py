"""Choices made whole: what was left open is filled in for the data, and what cannot be is refused."""

import dataclasses
from collections.abc import Mapping
from typing import Any, cast

import torch

from polygrain.data.measuring import measure_normalisation
from polygrain.data.photometric import IMAGENET
from polygrain.data.sources import Images
from polygrain.methods import METHODS
from polygrain.methods.adding import ADDABLE, Addition
from polygrain.methods.base import Settings
from polygrain.parts.encoder import Encoder, EncoderSettings
from polygrain.train.order import Order
from polygrain.train.scaling import SMALL, Choice, choose_method, choose_run, look_at
from polygrain.train.settings import PretrainSettings

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
