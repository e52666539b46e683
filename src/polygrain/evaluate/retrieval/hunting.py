"""Copies of pictures and the set in which their originals are looked for."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np

from polygrain.data.folders import FolderImages
from polygrain.data.sources import Images, open_images
from polygrain.evaluate.retrieval.attacks import ATTACKS

ORIGINALS = "original"  # the folder in Copydays that holds them
PREFIX = 4  # characters that the names of a copy and of its original have in common there


class Picture(NamedTuple):
    """One picture that is looked at."""

    images: Images
    position: int
    attack: str | None = None  # what is done to it


class Hunt(NamedTuple):
    """Copies, and where to look for their originals."""

    database: list[Picture]
    copies: list[Picture]
    kinds: list[str]  # of each copy, what was done to it
    originals: list[int]  # of each copy, the place of its original in the database
    digest: str  # of the images

    def among(self, others: Any) -> "Hunt":
        """The same with all images of another source in the database."""
        images = open_images(others)
        digest = hashlib.blake2b((self.digest + images.content()).encode(), digest_size=16).hexdigest()
        return self._replace(database=[*self.database, *everything(images)], digest=digest)


def everything(images: Images) -> list[Picture]:
    return [Picture(images, i) for i in range(len(images))]


def is_copydays(data: Any) -> bool:
    return isinstance(data, str | os.PathLike) and (Path(data) / ORIGINALS).is_dir()


def made(images: Images, originals: int, seed: int) -> Hunt:
    """Copies of some images, drawn from the seed, by every attack; all the others distract."""
    random = np.random.default_rng(seed)
    chosen = random.permutation(len(images))[:originals].tolist()
    copies = [Picture(images, i, attack) for attack in ATTACKS for i in chosen]
    kinds = [attack for attack in ATTACKS for _ in chosen]
    return Hunt(everything(images), copies, kinds, chosen * len(ATTACKS), images.content())


def copydays(root: str | os.PathLike[str]) -> Hunt:
    """A Copydays folder (Douze et al. 2009): `original/`, and copies in folders such as `jpegqual/3` or `strong`.

    A copy has the first four characters of its name in common with its original.

    Raises:
        ValueError: when two originals begin alike, or a copy has none.
    """
    images = FolderImages(root)
    paths = [PurePath(images.name(i)) for i in range(len(images))]
    database = [i for i, path in enumerate(paths) if path.parts[0] == ORIGINALS]
    copies = [i for i, path in enumerate(paths) if path.parts[0] != ORIGINALS]
    places: dict[str, int] = {}
    for place, i in enumerate(database):
        if (start := paths[i].name[:PREFIX]) in places:
            other = paths[database[places[start]]]
            raise ValueError(f"{paths[i]} and {other} begin alike ({start!r}): nobody knows whose copies are whose")
        places[start] = place
    if orphans := [str(paths[i]) for i in copies if paths[i].name[:PREFIX] not in places]:
        raise ValueError(f"{len(orphans)} of {len(copies)} copies have no original, the first is {orphans[0]}")
    if not copies:
        raise ValueError(f"{str(root)!r} holds {ORIGINALS}/ and no folder of copies beside it, such as strong/")
    return Hunt(
        _at(images, database),
        _at(images, copies),
        [str(paths[i].parent) for i in copies],
        [places[paths[i].name[:PREFIX]] for i in copies],
        images.content(),
    )


def _at(images: Images, positions: Sequence[int]) -> list[Picture]:
    return [Picture(images, i) for i in positions]
