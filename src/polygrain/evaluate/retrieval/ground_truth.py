"""Ground truth of retrieval benchmarks: revisited Oxford and Paris, as JSON or as the pickle they are published in."""

import json
import os
import pickle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from polygrain.data.images import Images
from polygrain.evaluate.retrieval.naming import finder, stem, whole, without_suffix

KINDS = ("easy", "hard", "junk")
# positives and junk of each protocol (arXiv:1803.11285)
PROTOCOLS = {"medium": (("easy", "hard"), ("junk",)), "hard": (("hard",), ("junk", "easy"))}


class GroundTruth(NamedTuple):
    """Which images of a database answer which queries."""

    database: list[str]  # names, without suffix
    queries: list[str]
    answers: list[dict[str, NDArray[np.int64]]]  # of each query, positions in the database by kind

    def flags(self, kinds: tuple[str, ...]) -> Tensor:
        """(Q, n) bool: what is of these kinds for each query."""
        flags = torch.zeros(len(self.queries), len(self.database), dtype=torch.bool)
        for row, answer in zip(flags, self.answers, strict=True):
            for kind in kinds:
                row[torch.from_numpy(answer[kind])] = True
        return flags


ARRAYS = {"numpy.ndarray", "numpy.dtype", "numpy._core.multiarray._reconstruct", "numpy._core.multiarray.scalar"}


class _Plain(pickle.Unpickler):
    """Only containers, text, numbers and arrays: nothing else in a pickle from somewhere can run."""

    def find_class(self, module: str, name: str) -> Any:
        module = module.replace("numpy.core.", "numpy._core.")
        if f"{module}.{name}" not in ARRAYS:
            raise ValueError(f"it asks for {module}.{name}; only lists, dictionaries, text, numbers, arrays are read")
        return super().find_class(module, name)


def read_ground_truth(path: str | os.PathLike[str]) -> GroundTruth:
    """Reads {"imlist": [...], "qimlist": [...], "gnd": [{"easy": [...], "hard": [...], "junk": [...]}, ...]}.

    Args:
        path: ends in .json or .pkl; a pickle is read by a reader that runs nothing.

    Raises:
        ValueError: when the file is not like that.
    """
    path = Path(path)
    if path.suffix not in (".json", ".pkl"):
        raise ValueError(f"{str(path)!r}: the ground truth is a .json or .pkl file with imlist, qimlist and gnd")
    try:
        with path.open("rb") as file:
            content = json.load(file) if path.suffix == ".json" else _Plain(file).load()
    except (ValueError, pickle.UnpicklingError, EOFError, IndexError, KeyError, AttributeError, MemoryError) as error:
        raise ValueError(f"{str(path)!r} cannot be read: {error}") from error
    try:
        database, queries = ([str(name) for name in content[key]] for key in ("imlist", "qimlist"))
        answers = [{kind: np.array(entry[kind], dtype=np.int64) for kind in KINDS} for entry in content["gnd"]]
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError(f"{str(path)!r} lacks {error}; wanted: imlist, qimlist and gnd with {KINDS}") from error
    if len(answers) != len(queries):
        raise ValueError(f"{str(path)!r} has {len(queries)} queries and answers to {len(answers)}")
    for query, answer in zip(queries, answers, strict=True):
        for kind, places in answer.items():
            if len(places) and not 0 <= places.min() <= places.max() < len(database):
                raise ValueError(f"{str(path)!r}: {kind} of {query!r} names image {places.max()} of {len(database)}")
    return GroundTruth(database, queries, answers)


def positions_of(names: list[str], images: Images, option: str) -> NDArray[np.int64]:
    """(n,) where the images of these names, which need no folder and no suffix, are in a source.

    Raises:
        ValueError: when one is not in it, or several are.
    """
    find = finder(images, whole, without_suffix, stem)
    places = {name: find(name) for name in names}
    if missing := [name for name in names if places[name] is None]:
        raise ValueError(f"{option} lacks {len(missing)} of {len(names)} images, the first is {missing[0]!r}")
    return np.array([places[name] for name in names], dtype=np.int64)
