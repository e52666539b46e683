"""What a backbone file says about itself: JSON in its header, trusted no further than it is checked."""

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple, get_args, get_type_hints

from torch import Tensor

from polygrain.data.photometric import Normalisation
from polygrain.parts.encoder import EncoderSettings
from polygrain.weights.tensors import sha256

LARGEST = 65_536  # of sizes, widths and the like
FIELDS = {"version", "encoder", "normalisation", "crop_size", "training"}
DIGEST = "sha256"  # of the description and the tensors; files of version 0.1 have none
DEPTHS = ("depth", "depths", "layers")  # timm's words for what is built one by one


class Description(NamedTuple):
    """What a backbone file says."""

    encoder: EncoderSettings
    normalisation: Normalisation
    crop_size: int
    training: Mapping[str, Any]
    digest: str | None


def describe(fields: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """The text to store beside the tensors, with a digest of itself and of them."""
    assert set(fields) == FIELDS
    return json.dumps({**fields, DIGEST: sha256(tensors, _canonical(fields))})


def matches(text: str, tensors: Mapping[str, Tensor]) -> bool:
    """Whether description and tensors are to the last bit those that were written."""
    fields = json.loads(text)
    digest = fields.pop(DIGEST, None)
    return digest is None or bool(digest == sha256(tensors, _canonical(fields)))


def _canonical(fields: Mapping[str, Any]) -> str:
    return json.dumps(json.loads(json.dumps(fields)), sort_keys=True)


def read_description(text: str, tensors: int) -> Description:
    """The checked content of a description.

    Args:
        tensors: how many the file holds; no encoder has more blocks.

    Raises:
        ValueError: when something is missing, not known, of another type or out of its range.
    """
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its description is not JSON ({' '.join(str(error).split())[:100]})") from error
    if not isinstance(fields, dict) or set(fields) - {DIGEST} != FIELDS:
        raise ValueError(f"its description must hold {', '.join(sorted(FIELDS))} and nothing else")
    if not isinstance(fields["training"], dict):
        raise ValueError("the training in its description must be a map")
    return Description(
        _encoder(fields["encoder"], tensors),
        _normalisation(fields["normalisation"]),
        _whole("crop_size", fields["crop_size"]),
        fields["training"],
        fields.get(DIGEST),
    )


def _encoder(given: Any, tensors: int) -> EncoderSettings:
    kinds = get_type_hints(EncoderSettings)
    if not isinstance(given, dict) or not {"name"} <= set(given) <= set(kinds):
        raise ValueError(f"its encoder must be described by {', '.join(kinds)}")
    name, arguments = given["name"], given.get("arguments", {})
    if not isinstance(name, str) or not re.fullmatch(r"[\w.-]{1,100}", name):
        raise ValueError(f"its encoder is named {str(name)[:40]!r}, which is no name of a model")
    if not isinstance(arguments, dict):
        raise ValueError("the arguments of its encoder must be a map")
    for key, value in arguments.items():
        _plain(key, value)
    blocks = sum(sum(_numbers(arguments.get(key))) for key in DEPTHS)
    if blocks > tensors:
        raise ValueError(f"its encoder would have {blocks:,} blocks, but the file holds {tensors:,} tensors")
    for key, value in given.items():
        choices = get_args(kinds[key]) or (kinds[key],)
        if key != "arguments" and value not in choices and type(value) not in choices:
            raise ValueError(f"{key} of its encoder is {str(value)[:40]!r}; it must be {kinds[key]}")
        if type(value) is int:
            _whole(key, value)
    return EncoderSettings(**{**given, "pretrained": False})


def _plain(name: str, value: Any) -> None:
    """Whether an argument is a number in bounds, a word, a truth, or a list of these."""
    if not name.isidentifier() or len(name) > 100:
        raise ValueError(f"its encoder has an argument {name[:40]!r}, which is no name")
    for entry in value if isinstance(value, list) else (value,):
        if isinstance(entry, str) and len(entry) > 100:
            raise ValueError(f"{name} of its encoder is a text of {len(entry):,} characters")
        if isinstance(entry, int | float) and not (math.isfinite(entry) and abs(entry) <= LARGEST):
            raise ValueError(f"{name} of its encoder is {str(entry)[:40]}; it must be {LARGEST:,} or less")
        if not isinstance(entry, str | int | float | None):
            raise ValueError(f"{name} of its encoder must be a number, a word or a list of these")


def _numbers(value: Any) -> list[int]:
    return [entry for entry in (value if isinstance(value, list) else [value]) if isinstance(entry, int)]


def _normalisation(given: Any) -> Normalisation:
    if not isinstance(given, dict) or set(given) != {"mean", "std"}:
        raise ValueError("its normalisation must hold mean and std")
    mean, std = given["mean"], given["std"]
    numbers = [*mean, *std] if isinstance(mean, list) and isinstance(std, list) else [None]
    if not all(isinstance(number, int | float) and abs(number) <= LARGEST for number in numbers):
        raise ValueError("mean and std of its normalisation must be lists of numbers")
    if len(mean) != len(std) or not mean or min(std) <= 0:
        raise ValueError("its normalisation must have as many mean as std, each std above 0")
    return Normalisation(tuple(mean), tuple(std))


def _whole(name: str, value: Any) -> int:
    if type(value) is not int or not 0 <= value <= LARGEST:
        raise ValueError(f"its {name} is {str(value)[:40]}; it must be a whole number up to {LARGEST:,}")
    return value


def encoder_fields(settings: EncoderSettings) -> dict[str, Any]:
    """Settings of an encoder as they are stored: what matters in training alone is reset."""
    return {**dataclasses.asdict(settings), "pretrained": False, "checkpointing": False}
