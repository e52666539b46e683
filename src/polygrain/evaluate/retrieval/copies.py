"""Near-copy detection: changed pictures look for their originals among many others."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from polygrain.data.sources import open_images
from polygrain.evaluate.labelled import constant, describe, named
from polygrain.evaluate.metrics import Scores
from polygrain.evaluate.models import open_model
from polygrain.evaluate.result import Result, versions
from polygrain.evaluate.retrieval.hunting import copydays, everything, is_copydays, made
from polygrain.evaluate.retrieval.ranking import average_precision, blocks, ranks_of, recall_at
from polygrain.evaluate.retrieval.squeezed import POWER, see
from polygrain.evaluate.retrieval.whitening import whitening
from polygrain.evaluate.sampling import Sample
from polygrain.evaluate.settings.retrieval import CopiesSettings

COPIED = 50  # images, unless told otherwise
LISTED = 20  # length of a list; what stands behind counts as not found


class Found(NamedTuple):
    """How well the original of each copy was found, (n,)."""

    precision: NDArray[np.float64]
    first: NDArray[np.float64]  # 1 where it is the first of the list


def evaluate_copies(
    model: Any, data: Any, distractors: Any = None, whiten: Any = None, settings: CopiesSettings | None = None
) -> Result:
    """Looks for the originals of copies.

    Args:
        model: what `open_model` takes.
        data: images, some of which are copied while the others distract; or a Copydays folder, see `copydays`.
        distractors: more images that are no originals.
        whiten: other images, by which vectors are whitened.

    Raises:
        ValueError: when something handed in cannot be used, in one line.
    """
    settings = settings or CopiesSettings()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)  # of the weights of an untrained encoder
        opened = open_model(model)
    if opened.encoder.channels != 3:
        raise ValueError(f"copies are pictures of 3 channels, and this encoder takes {opened.encoder.channels}")
    if whiten is None and settings.covariance is not None:
        raise ValueError(f"covariance is {settings.covariance}, and nothing is whitened; give --whiten, or omit it")
    if is_copydays(data) and settings.originals is not None:
        raise ValueError(f"originals is {settings.originals}, and {data} is Copydays, which has its own; omit it")
    hunt = copydays(data) if is_copydays(data) else made(open_images(data), settings.originals or COPIED, settings.seed)
    if distractors is not None:
        hunt = hunt.among(distractors)
    database, copies = (see(opened, pictures, settings) for pictures in (hunt.database, hunt.copies))
    originals = torch.tensor(hunt.originals)
    usable = (copies.read & database.read[originals]).nonzero().flatten()
    notes = [
        f"{n} {what} cannot be decoded and are left out"
        for n, what in ((int((~database.read).sum()), "images"), (len(copies.read) - len(usable), "copies"))
        if n
    ]
    if constant(database.ours):
        notes.append("the features of all images are the same: the ranking is random")
    order = torch.randperm(len(database.read), generator=torch.Generator().manual_seed(settings.seed))
    order = order[database.read[order]]  # in disorder, else originals would come first among equals
    if len(order) < 2:
        raise ValueError(f"{len(order)} image to look among, which any copy finds; give more, or --distractors")
    queries, columns = copies.ours[usable], database.ours[order]
    white, covariance = None, settings.covariance or "uncentred"
    if whiten is not None:
        white = open_images(whiten)
        others = see(opened, everything(white), settings)
        white_map = whitening(others.ours[others.read], covariance)
        queries, columns = white_map(queries), white_map(columns)
    truth, kinds = originals[usable], np.array(hunt.kinds)[usable.numpy()]
    relevant = truth[:, None] == order
    found = {
        "": _search(queries, columns, relevant),
        "pixels_": _search(copies.pixels[usable], database.pixels[order], relevant),
    }
    rows = {kind: np.flatnonzero(kinds == kind) for kind in dict.fromkeys(kinds.tolist())}
    precisions = by_original(found[""].precision, truth)
    originals_asked = len(precisions.values)
    size = settings.size or opened.image_size
    return Result(
        protocol="copies",
        description=(
            f"Near-copy detection: whole pictures squeezed to {size} px; class token (else pooled vector) beside the "
            f"generalised mean (p={POWER}) of the patches{', whitened' if white is not None else ''}; cosine; average "
            f"precision by trapezoids over the first {LISTED}; beside it raw pixels (16x16); means over copies, 95 % "
            "interval from resampled originals, each with all of its copies"
        ),
        scores={
            "all": _scores(found, np.arange(len(truth))) | precisions.estimate(seed=settings.seed).scores("mAP"),
            **{kind: _scores(found, places) for kind, places in rows.items()},
        },
        facts={
            "data": {"copies": len(truth), "originals": originals_asked, "database": len(order), "digest": hunt.digest},
            "whitening": None if white is None else {"digest": white.content(), "covariance": covariance},
            "preprocessing": {"resize": f"squeezed to {size} px, bicubic, antialiased"},
            "settings": {"size": size, "seed": settings.seed},
        },
        model=describe(opened) | {"dimensions": queries.shape[1]},
        details={"data": named(data), "versions": versions()},
        notes=tuple(notes),
        about=f"{opened.name}: {len(truth):,} copies of {originals_asked:,} originals among {len(order):,} images",
        items={"all": precisions},
    )


def _search(queries: Tensor, database: Tensor, relevant: Tensor) -> Found:
    """Copies (Q, D) in a database (n, D), with the original of each in `relevant` (Q, n) bool."""
    queries, database = F.normalize(queries, dim=1), F.normalize(database, dim=1)
    precision, first = [], []
    for rows in blocks(len(queries), len(database)):
        ranks = ranks_of(queries[rows] @ database.T, relevant[rows])
        precision.append(average_precision(ranks, LISTED))
        first.append(recall_at(ranks, 1))
    return Found(torch.cat(precision).numpy(), torch.cat(first).numpy())


def by_original(values: NDArray[np.float64], truth: Tensor) -> Sample:
    """The mean over copies as DINO's `eval_copy_detection.py` takes it, resampled by originals (n, 2: sum and number),
    since copies of one picture are no independent trials.

    Args:
        values: (Q,) of the copies; `truth`: (Q,) which original each is of.
    """
    _, groups = np.unique(truth.numpy(), return_inverse=True)
    sums = np.stack([np.bincount(groups, weights=values), np.bincount(groups)], axis=1)
    return Sample(sums.astype(np.float64), lambda means: means[..., 0] / means[..., 1])


def _scores(found: Mapping[str, Found], places: NDArray[np.intp]) -> Scores:
    scores = {}
    for name, values in found.items():
        for metric, each in ((f"{name}mAP", values.precision), (f"{name}recall@1", values.first)):
            scores[metric] = float(each[places].mean())
    return scores
