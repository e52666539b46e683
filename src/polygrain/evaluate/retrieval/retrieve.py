"""Retrieval: each query ranks a database by cosine similarity."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from polygrain.data.sources import Images, open_images
from polygrain.evaluate import cache
from polygrain.evaluate.classes import common_labels, numbered
from polygrain.evaluate.features import Views
from polygrain.evaluate.labelled import constant, data_facts, describe, named, preprocessing
from polygrain.evaluate.metrics import Scores
from polygrain.evaluate.models import Model, open_model, pick_device
from polygrain.evaluate.overlap import shared
from polygrain.evaluate.readouts import IN_WORDS
from polygrain.evaluate.result import Result, versions
from polygrain.evaluate.retrieval.ground_truth import PROTOCOLS, GroundTruth, positions_of, read_ground_truth
from polygrain.evaluate.retrieval.ranking import average_precision, blocks, precision_at, ranks_of, recall_at
from polygrain.evaluate.sampling import Sample
from polygrain.evaluate.settings.retrieval import RetrieveSettings

Relevance = Callable[[slice], tuple[Tensor, Tensor | None]]  # positives and junk (q, n) of some queries

ALONE = "leave-one-out"


class Search(NamedTuple):
    """What is searched for in what."""

    queries: Tensor  # (Q, D)
    database: Tensor  # (n, D)
    ranked: int  # images in the list of a query
    relevance: Mapping[str, Relevance]  # by row of the table
    at_k: str  # "recall" or "precision"
    facts: dict[str, Any]
    kind: str  # in words


def evaluate_retrieve(
    model: Any,
    data: Any,
    val: Any = None,
    ground_truth: str | os.PathLike[str] | None = None,
    settings: RetrieveSettings | None = None,
) -> Result:
    """Ranks the images of `data` for every query.

    The queries are the images of `data` themselves, each without itself (leave-one-out), or those of `val`; an image
    answers a query of its class, or as the ground truth says.

    Args:
        model: what `open_model` takes; `data` and `val`: what `open_images` takes.
        ground_truth: of revisited Oxford or Paris, see `read_ground_truth`; queries are in `val`, or in `data` too.

    Raises:
        ValueError: when something handed in cannot be used, in one line.
    """
    settings = settings or RetrieveSettings()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)  # of the weights of an untrained encoder
        opened = open_model(model)
    notes: list[str] = []
    encoder = _Vectors(opened, settings, notes, whole=ground_truth is not None)
    database = open_images(data, opened.encoder.channels)
    queries = database if val is None else open_images(val, opened.encoder.channels)
    if ground_truth is not None:
        search = _benchmark(encoder, database, queries, read_ground_truth(ground_truth))
    else:
        search = _by_class(encoder, database, None if val is None else queries)
    notes += _odd(search, settings)
    most = search.ranked if search.at_k == "recall" else max(settings.k)  # precision stops at the last positive anyway
    ks = sorted({min(k, most) for k in settings.k})
    by_row = {row: _values(search, relevance, ks) for row, relevance in search.relevance.items()}
    answered = {row: ~np.isnan(values["mAP"]) for row, values in by_row.items()}
    for row, there in answered.items():
        if not there.any():
            raise ValueError(f"{row}: no query has an image that answers it; each class needs two images or more")
        if not there.all():
            notes.append(f"{row}: {np.count_nonzero(~there)} queries that no image answers are left out")
    items = {row: Sample(values["mAP"][answered[row]]) for row, values in by_row.items()}
    return Result(
        protocol="retrieve",
        description=(
            f"Retrieval ({search.kind}) by cosine similarity; average precision by trapezoids, equal similarities in "
            "random order; 95 % interval from resampled queries"
        ),
        scores={row: _scores(values, items[row], answered[row], settings.seed) for row, values in by_row.items()},
        facts={
            **search.facts,
            "preprocessing": preprocessing(encoder.views(database, 1), opened),
            "features": IN_WORDS[settings.readout] + ", float32, unit length",
            "settings": settings.of_protocol() | {"size": encoder.size, "k": ks},
        },
        model=describe(opened) | {"dimensions": search.database.shape[1]},
        details={"data": named(data), "val": None if val is None else named(val), "versions": versions()},
        notes=tuple(notes),
        about=_about(opened, data, search),
        items=items,
    )


class _Vectors(NamedTuple):
    """Images to vectors."""

    model: Model
    settings: RetrieveSettings
    notes: list[str]
    whole: bool  # whether nothing is cut off unless `resize` says so

    @property
    def size(self) -> int:
        return self.settings.size or self.model.image_size

    def views(self, images: Images, scale: float) -> Views:
        stride = self.model.encoder.stride
        side = max(stride, round(self.size * scale / stride) * stride) if scale != 1 else self.size
        resize = self.settings.resize or (self.size if self.whole else None)
        views = Views(images, self.size, resize, self.model.normalisation, self.settings.aspect)
        views.check()
        if scale == 1:
            return views
        # the same part of each image at every scale
        return views._replace(size=side, resize=resize and round(resize * side / self.size), whole_at=self.size)

    def __call__(self, images: Images, positions: NDArray[np.int64], what: str) -> tuple[Tensor, NDArray[np.int64]]:
        """(n, D) of unit length, and the positions (n,) of those that can be decoded."""
        total, seen = torch.zeros(()), None
        for scale in self.settings.scales:
            seen, note = cache.features(self.model, self.views(images, scale), positions, self.settings)
            self.notes.extend([note] if note else [])
            total = total + seen.pooled
        assert seen is not None
        if len(seen.positions) < len(positions):
            self.notes.append(f"{len(positions) - len(seen.positions)} {what} cannot be decoded and are left out")
        return F.normalize(total, dim=1).to(pick_device(self.settings.device)), seen.positions.numpy()


def _by_class(encoder: _Vectors, database: Images, queries: Images | None) -> Search:
    """Images of the query's class answer it."""
    labels, _, renumbered = numbered(*_labels(database, queries), several=("--data",))
    encoder.notes.extend(renumbered)
    known = np.flatnonzero(labels[0] >= 0)
    if len(known) < len(database):
        encoder.notes.append(f"{len(database) - len(known)} images have no label and are left out")
    seen, positions = encoder(database, known, "images of the database")
    random = np.random.default_rng(encoder.settings.seed)
    order = torch.from_numpy(random.permutation(len(seen)))  # else equals would come class by class
    truth = torch.from_numpy(labels[0][positions])
    facts: dict[str, Any] = {"data": data_facts(database, truth)}
    if queries is None:
        asked, asked_truth, kind, ranked = seen, truth, ALONE, len(truth) - 1
        answers = torch.bincount(truth)[truth] - 1
    else:
        asked, places = encoder(queries, np.flatnonzero(labels[1] >= 0), "queries")
        asked_truth, kind, ranked = torch.from_numpy(labels[1][places]), "queries in a database", len(truth)
        facts["val"] = data_facts(queries, asked_truth)
        answers = torch.bincount(truth, minlength=int(asked_truth.max()) + 1)[asked_truth]
    facts["chance"] = (answers[answers > 0] / ranked).mean().item()  # of the queries that count

    def relevance(rows: slice) -> tuple[Tensor, Tensor | None]:
        positive = asked_truth[rows, None] == truth[order]
        itself = torch.arange(len(asked))[rows, None] == order
        return positive.to(seen.device), itself.to(seen.device) if queries is None else None

    database_vectors = seen[order.to(seen.device)]
    return Search(asked, database_vectors, ranked, {kind: relevance}, "recall", facts, kind)


def _labels(database: Images, queries: Images | None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of both sources; queries may be of one class, as a single folder says that is named like one of the database."""
    if queries is not None and queries.only_folder is not None and database.classes is not None:
        if queries.only_folder not in database.classes:
            raise ValueError(f"--val has a class {queries.only_folder!r} that --data has not")
        return common_labels(database, database)[0], np.full(len(queries), database.classes.index(queries.only_folder))
    return common_labels(database, database if queries is None else queries)


def _benchmark(encoder: _Vectors, database: Images, queries: Images, truth: GroundTruth) -> Search:
    """Revisited Oxford and Paris, medium and hard."""
    sides = (database, truth.database, "--data", "images"), (queries, truth.queries, "--val", "queries")
    seen = []
    for images, names, option, what in sides:
        vectors, positions = encoder(images, found := positions_of(names, images, option), what)
        if len(positions) < len(found):
            lost = images.name(int(np.setdiff1d(found, positions)[0]))
            raise ValueError(f"{lost!r} cannot be decoded, and the ground truth counts on it")
        seen.append(vectors)
    flags = {row: tuple(map(truth.flags, kinds)) for row, kinds in PROTOCOLS.items()}

    def relevance(row: str) -> Relevance:
        positive, junk = flags[row]
        return lambda rows: (positive[rows].to(seen[0].device), junk[rows].to(seen[0].device))

    answers = torch.stack([flag for pair in flags.values() for flag in pair])
    facts = {
        "data": data_facts(database, answers) | {"images": len(truth.database), "names": _digest(truth.database)},
        "val": {"images": len(truth.queries), "digest": queries.content(), "names": _digest(truth.queries)},
    }
    kind = "revisited Oxford and Paris, queries not cropped"
    by_row = {row: relevance(row) for row in PROTOCOLS}
    return Search(seen[1], seen[0], len(seen[0]), by_row, "precision", facts, kind)


def _digest(names: list[str]) -> str:
    return hashlib.blake2b(json.dumps(names).encode(), digest_size=16).hexdigest()


def _odd(search: Search, settings: RetrieveSettings) -> list[str]:
    """What a reader must know about what is searched for in what."""
    notes = []
    if constant(search.database):
        notes.append("the features of all images are the same: the ranking is random")
    elif search.kind != ALONE and (both := shared(search.database, search.queries)):
        told = "have the features of an image of the database: copies, or pictures that this model cannot tell apart"
        notes.append(f"{both:,} of {len(search.queries):,} queries {told}")
    if search.at_k == "recall" and max(settings.k) > search.ranked:
        lowered = f"was lowered to {search.ranked}, where recall is 100 % for any model"
        notes.append(f"k above the {search.ranked} images that are ranked {lowered}")
    return notes


def _values(search: Search, relevance: Relevance, ks: Sequence[int]) -> dict[str, NDArray[np.float64]]:
    """By metric one value for each query (Q,), NaN where no image answers it."""
    at_k = recall_at if search.at_k == "recall" else precision_at
    found: dict[str, list[Tensor]] = {}
    for rows in blocks(len(search.queries), len(search.database)):
        ranks = ranks_of(search.queries[rows] @ search.database.T, *relevance(rows))
        found.setdefault("mAP", []).append(average_precision(ranks))
        for k in ks:
            found.setdefault(f"{search.at_k}@{k}", []).append(at_k(ranks, k))
    return {name: torch.cat(parts).cpu().numpy() for name, parts in found.items()}


def _scores(
    values: dict[str, NDArray[np.float64]], precisions: Sample, answered: NDArray[np.bool_], seed: int
) -> Scores:
    scores = {name: float(each[answered].mean()) for name, each in values.items()}
    return scores | precisions.estimate(seed=seed).scores("mAP")


def _about(model: Model, data: Any, search: Search) -> str:
    chance = f" (chance of the first being right {search.facts['chance']:.1%})" if "chance" in search.facts else ""
    return f"{model.name}: {len(search.queries):,} queries in {len(search.database):,} images of {named(data)}{chance}"
