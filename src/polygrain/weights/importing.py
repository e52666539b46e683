"""Official checkpoints of Mugs, VICReg, VICRegL and others, by explicit key tables: nothing is loaded by half."""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from polygrain.methods.base import Method
from polygrain.parts.encoder import Encoder, Family
from polygrain.parts.queue import Queue
from polygrain.parts.stems import adapt_stem
from polygrain.parts.teacher import StudentTeacher
from polygrain.weights.account import PROBLEMS, ImportReport, IncompleteImport
from polygrain.weights.agreement import check_activations
from polygrain.weights.finding import ANCHORS, Home, Kind, Side, check_build, find_backbone
from polygrain.weights.official import heads_of
from polygrain.weights.reading import read_checkpoint
from polygrain.weights.tables import (
    CONVNEXT_BACKBONE,
    MUGS_FULL,
    NOT_BACKBONE,
    RESNET_BACKBONE,
    VICREG_FULL,
    VIT_BACKBONE,
    Rule,
    Table,
)
from polygrain.weights.tables_clustering import NOT_BACKBONE_CLUSTERING, PCL_FULL, clustering_table
from polygrain.weights.tables_contrastive import (
    INFOMIN_FULL,
    MOCOV2_FULL,
    MOCOV3_FULL,
    NOT_BACKBONE_CONTRASTIVE,
    contrastive_table,
)
from polygrain.weights.tables_dino import DINO_FULL, NOT_BACKBONE_DINO, dino_table
from polygrain.weights.tensors import check_finite
from polygrain.weights.translating import joined, translate, with_parts

TABLES: dict[Family, tuple[Rule, ...]] = {
    "vit": VIT_BACKBONE,
    "resnet": RESNET_BACKBONE,
    "convnext": CONVNEXT_BACKBONE,
}


def import_weights(
    path: str | Path, encoder: Encoder, kind: Kind = "auto", which: Side | None = None, allow_missing: bool = False
) -> ImportReport:
    """Fills an encoder from an official file, backbone-only or full.

    Args:
        which: the network to take from a file with both; by default the teacher, as evaluation does, or the one
            that is there. The report says which.
        allow_missing: accept tensors without a place on either side (not those of a wrong shape).

    Raises:
        IncompleteImport: when not every tensor is accounted for.
        ValueError: when the file holds no such backbone, or NaN, or the encoder computes something else than the
            authors' network with the same tensors; the encoder is then not to be used.
    """
    return fill_encoder(read_checkpoint(path), str(path), encoder, kind, which, allow_missing)


def fill_encoder(
    tensors: Mapping[str, Tensor],
    source: str,
    encoder: Encoder,
    kind: Kind = "auto",
    which: Side | None = None,
    allow_missing: bool = False,
) -> ImportReport:
    """What `import_weights` does, with the tensors of a file."""
    home = find_backbone(tensors, kind, which, source)
    check_build(encoder, home, tensors, source)
    other = "teacher" if home.prefix.startswith("student/") else "student"
    left = (*NOT_BACKBONE, *NOT_BACKBONE_CLUSTERING, *NOT_BACKBONE_CONTRASTIVE, *NOT_BACKBONE_DINO)
    elsewhere = (*left, Rule(rf"{other}/.*", left=f"the {other}; {home.prefix!r} was taken"))
    tensors = _adapted(tensors, home, encoder)
    inside = {key.removeprefix(home.prefix): value for key, value in tensors.items() if key.startswith(home.prefix)}
    outside = {key: value for key, value in tensors.items() if not key.startswith(home.prefix)}
    new, rows = translate(inside, (*TABLES[home.family], *left), encoder.model.state_dict())
    rows = [row._replace(source=home.prefix + row.source) if row.source else row for row in rows]
    rows += translate(outside, elsewhere, {})[1]
    report = ImportReport(source=source, rows=tuple(rows), notes=(*_taken(home.prefix), *_notes(encoder)))
    _fill(encoder.model, new, report, allow_missing)
    missing = tuple(row.target for row in rows if row.fate == "missing")
    return report.noting(check_activations(encoder, inside, source, missing, heads_of(home.prefix)))


def import_full(path: str | Path, method: Method, allow_missing: bool = False) -> ImportReport:
    """Fills a method from a full official checkpoint: both networks, heads, prototypes, queues, memories, centre.

    Raises:
        IncompleteImport: when not every tensor is accounted for.
        ValueError: when the file is no full checkpoint of Mugs, VICReg or VICRegL, or the encoder is built otherwise.
    """
    return fill_method(read_checkpoint(path), str(path), method, allow_missing)


def fill_method(
    tensors: Mapping[str, Tensor], source: str, method: Method, allow_missing: bool = False
) -> ImportReport:
    """What `import_full` does, with the tensors of a file.

    An official file does not say how much of a queue is still noise: queues are taken for full, and memories for as
    full as they have rows that were written (in those the searched vector is the returned one).
    """
    table = full_table(tensors, method)
    if table is None:
        raise ValueError(f"{source} is not a full checkpoint of a method that is known here")
    paired = table in (MUGS_FULL, DINO_FULL, MOCOV2_FULL, MOCOV3_FULL, INFOMIN_FULL, PCL_FULL)
    student = find_backbone(tensors, "auto", "student" if paired else None, source)
    check_build(method.student, student, tensors, source)
    sides: dict[Side | None, Encoder] = {None: method.student}
    if paired:
        assert isinstance(method.encoder, StudentTeacher)
        sides = {"student": method.encoder.student, "teacher": method.encoder.teacher}
    homes = {which: find_backbone(tensors, "auto", which, source) for which in sides}
    for which, home in homes.items():
        tensors = _adapted(tensors, home, sides[which])
    own = method.state_dict()
    queues = [name for name, module in method.named_modules() if isinstance(module, Queue)]
    places = {key: value for key, value in own.items() if key not in {f"{queue}.filled" for queue in queues}}
    places.update({f"{queue}.values": own[f"{queue}.rows"] for queue in queues if queue.endswith("_memory")})
    new, rows = translate(tensors, table, with_parts(places, table))
    report = ImportReport(source=source, rows=tuple(rows), notes=_notes(method.student))
    new = joined(new, places)
    for queue in queues:
        new[f"{queue}.filled"] = _filled(new.get(f"{queue}.rows"), new.get(f"{queue}.values"))
    _fill(method, new, report, allow_missing)
    missing = tuple(row.target for row in rows if row.fate == "missing")
    for which, encoder in sides.items():
        prefix = homes[which].prefix
        inside = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        root = f"encoder.{which}.model." if which else "encoder.model."
        lacking = tuple(name.removeprefix(root) for name in missing if name.startswith(root))
        report = report.noting(check_activations(encoder, inside, source, lacking, heads_of(prefix)))
    return report


def full_table(tensors: Mapping[str, Tensor], method: Method) -> Table | None:
    """The key table of a full checkpoint; None for a file that holds a backbone alone.

    Args:
        method: to be filled; it tells MoCo v2 and PCL apart, whose files have the same names.
    """
    if (table := contrastive_table(tensors)) is not None:
        return PCL_FULL if table is MOCOV2_FULL and "instance" not in method.objectives else table
    if (table := clustering_table(tensors)) is not None:
        return table
    if (table := dino_table(tensors)) is not None:
        return table
    if any(key.startswith("student/") for key in tensors) and any(key.startswith("teacher/") for key in tensors):
        return MUGS_FULL
    if any(re.match(r"(?:model/)?module\.(?:maps_)?projector\.", key) for key in tensors):
        return VICREG_FULL
    return None


def _fill(module: nn.Module, new: Mapping[str, Tensor], report: ImportReport, allow_missing: bool) -> None:
    """Copies the new values; the module is untouched when the report has problems that are not allowed."""
    allowed = ("missing", "unknown") if allow_missing else ()
    if any(row.fate in PROBLEMS and row.fate not in allowed for row in report.rows):
        mend = "nothing was loaded" if report.count("misfit") else "nothing was loaded; --allow-missing accepts this"
        raise IncompleteImport(report, mend)
    check_finite(new, report.source)
    kept = {key: value for key, value in module.state_dict().items() if key not in new}
    module.load_state_dict({**kept, **new})


def _filled(rows: Tensor | None, values: Tensor | None) -> Tensor:
    if rows is None:
        return torch.tensor(0)
    return torch.tensor(len(rows)) if values is None else (rows == values).all(1).sum()


def _adapted(tensors: Mapping[str, Tensor], home: Home, encoder: Encoder) -> Mapping[str, Tensor]:
    """The same tensors, the first convolution of this backbone brought to the encoder's channels."""
    key, name = home.prefix + ANCHORS[home.family], f"{encoder.model.pretrained_cfg['first_conv']}.weight"
    if tensors[key].ndim != 4:
        return tensors
    return {**tensors, key: adapt_stem({name: tensors[key]}, encoder.model)[name]}


def _taken(prefix: str) -> tuple[str, ...]:
    return (f"taken from the tensors that begin with {prefix!r}",) if prefix else ()


def _notes(encoder: Encoder) -> tuple[str, ...]:
    adapted = (f"the first convolution was adapted to {encoder.channels} channels",) if encoder.channels != 3 else ()
    if encoder.family == "vit" and encoder.settings.position != "dino":
        return (
            *adapted,
            f'Mugs, DINO and iBOT were trained with position="dino"; this encoder resamples its position codes as timm '
            f"does at sizes other than {encoder.image_size} px",
        )
    return adapted
