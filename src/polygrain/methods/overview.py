"""What each method is, what it takes and what it costs: the table of `polygrain methods`."""

import copy
import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from polygrain.methods import METHODS, VERIFIED
from polygrain.methods.base import Method
from polygrain.objectives.base import Objective
from polygrain.parts.encoder import Encoder, EncoderSettings
from polygrain.parts.teacher import StudentTeacher
from polygrain.schedules import RunLength

FAMILIES = {"ViT": "vit_small_patch16_224", "ResNet": "resnet50", "ConvNeXt": "convnext_small_vicregl"}
IMAGENET = RunLength(images=1_281_167, batch_size=1024, epochs=100, steps_per_epoch=1251)


class Row(NamedTuple):
    """One method; sizes in MiB of float32 at the paper's settings, encoders not counted."""

    method: str
    granularity: str
    encoders: str  # families that it takes
    networks: int  # encoders in memory
    heads: float  # parameters of heads, prototypes, predictors, decoders; of student and teacher
    stores: float  # queues, memories, centres
    of: str  # the encoder for which these hold
    verified: str


def overview() -> list[Row]:
    """One row per method; nothing is allocated."""
    with torch.device("meta"):
        encoders = {family: Encoder(EncoderSettings(name=model)) for family, model in FAMILIES.items()}
    return [_row(name, encoders) for name in METHODS]


def _row(name: str, encoders: Mapping[str, Encoder]) -> Row:
    given = {"classes": 1000} if any(field.name == "classes" for field in _fields(name)) else {}
    settings = METHODS[name](**given)
    built: dict[str, Method] = {}
    for family, encoder in encoders.items():
        try:
            with torch.device("meta"):
                built[family] = settings.build(copy.deepcopy(encoder))
        except ValueError:
            continue  # the method says why, to whoever asks for this family
    wanted = "ViT" if settings.optimization(IMAGENET).optimizer == "adamw" else "ResNet"  # what its optimizer is for
    family = wanted if wanted in built else next(iter(built))
    method = built[family]
    kinds = dict.fromkeys(cast(Objective, objective).granularity for objective in method.objectives.values())
    method.prepare(IMAGENET.images)
    of_encoders = {id(value) for value in (*method.encoder.parameters(), *method.encoder.buffers())}
    return Row(
        method=name,
        granularity=", ".join(kinds) or "class",
        encoders=", ".join(built),
        networks=2 if isinstance(method.encoder, StudentTeacher) else 1,
        heads=_mib(value for value in method.parameters() if id(value) not in of_encoders),
        stores=_mib(value for value in method.buffers() if id(value) not in of_encoders),
        of=FAMILIES[family],
        verified=VERIFIED[name],
    )


def _fields(name: str) -> tuple[Any, ...]:
    return dataclasses.fields(cast(Any, METHODS[name]))


def _mib(tensors: Iterable[Tensor]) -> float:
    return sum(value.numel() * value.element_size() for value in tensors) / 2**20


def table(rows: list[Row]) -> str:
    """The rows as aligned columns."""
    head = ("method", "granularity", "encoders", "networks", "heads MiB", "stores MiB", "with", "verified against")
    cells = [head, *((*row[:3], str(row.networks), f"{row.heads:.1f}", f"{row.stores:.1f}", *row[6:]) for row in rows)]
    widths = [max(len(cell) for cell in column) for column in zip(*cells, strict=True)]
    right = {3, 4, 5}
    lines = (
        "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in cells
    )
    return "\n".join(line.rstrip() for line in lines)
