"""What is in a source of images: which cannot be used, which are odd, which are there twice."""

import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from polygrain.data.crew import Lost, in_workers
from polygrain.data.duplicates import first_equal, first_near
from polygrain.data.escaping import escaped
from polygrain.data.findings import DUPLICATE, HURTFUL, KINDS, NEAR, ODDITIES, PATIENCE
from polygrain.data.images import Images
from polygrain.data.looking import Look, Oddity, look
from polygrain.data.troubles import TROUBLES

EXAMPLES = 3
LOOKS = np.dtype(
    [
        ("oddities", "u4"),
        ("height", "i4"),
        ("width", "i4"),
        ("size", "i8"),
        ("pixels", "u8"),
        ("across", "u8"),
        ("down", "u8"),
    ]
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Inspection:
    """What was found. Places are positions in `images`."""

    images: Images
    places: NDArray[np.int64]  # (n,) of the images that were looked at
    sizes: NDArray[Any]  # (n,) of LOOKS
    found: dict[str, NDArray[np.int64]]  # kind of finding -> places, where there are any; in the order of KINDS
    reasons: dict[int, str]  # place -> what the decoder said
    same_as: dict[int, int]  # place of a duplicate or near duplicate -> place of the image it repeats

    @property
    def counts(self) -> dict[str, int]:
        """Images by kind of finding; an image may have several."""
        return {kind: len(places) for kind, places in self.found.items()}

    @property
    def bad(self) -> int:
        """Images that cannot be used at all."""
        return sum(len(self.found.get(trouble, ())) for trouble in TROUBLES)

    @property
    def bad_fraction(self) -> float:
        """Share of the images looked at that cannot be used at all."""
        return self.bad / len(self.places)

    def summary(self) -> str:
        """One line: how many cannot be used, why, and the first of them."""
        looked = f"{len(self.places):,} of {len(self.images):,} images looked at"
        if not self.bad:
            return f"{looked}; all can be decoded"
        kinds = ", ".join(f"{len(self.found[kind]):,} {kind}" for kind in TROUBLES if kind in self.found)
        first = next(int(place) for kind in TROUBLES for place in self.found.get(kind, ()))
        return (
            f"{looked}; {self.bad:,} cannot be used ({self.bad_fraction:.2%}): {kinds}; "
            f"such as {self.images.name(first)!r}: {self.reasons[first]}"
        )

    def quarantine(self) -> Iterator[tuple[str, str]]:
        """Names and reasons of the images that would hurt: those that cannot be used, constant ones, and duplicates.

        Of several equal images the first stays. Near duplicates stay: a hash cannot tell what a person would.
        """
        told: set[int] = set()
        for kind in HURTFUL:
            for place in self.found.get(kind, np.empty(0, np.int64)).tolist():
                if place not in told:
                    told.add(place)
                    yield self.images.name(place), self.reason(kind, place)

    def reason(self, kind: str, place: int) -> str:
        """Why image `place` is of a kind, in a few words."""
        if kind in (DUPLICATE, NEAR):
            return f"{kind} of {escaped(self.images.name(self.same_as[place]))}"
        return f"{kind}: {self.reasons[place]}" if place in self.reasons else kind

    def sides(self) -> dict[str, dict[str, float]]:
        """Smallest, median and largest side and file, of the images that can be decoded."""
        fine = self.sizes[self.sizes["height"] > 0]
        if not len(fine):
            return {}
        shorter, longer = np.minimum(fine["height"], fine["width"]), np.maximum(fine["height"], fine["width"])
        measures = {"shorter side, px": shorter, "longer side, px": longer, "file, bytes": fine["size"]}
        return {
            name: {"min": float(values.min()), "median": float(np.median(values)), "max": float(values.max())}
            for name, values in measures.items()
            if values.any()
        }

    def table(self) -> str:
        """All findings with counts, examples and advice."""
        lines = [f"{len(self.places):,} of {len(self.images):,} images looked at, {_bytes(self.sizes['size'].sum())}"]
        for name, side in self.sides().items():
            lines.append(
                f"{name:<17} min {side['min']:>12,.0f}   median {side['median']:>12,.0f}   max {side['max']:>12,.0f}"
            )
        for title, kinds in (("Cannot be used", TROUBLES), ("Can be used, but", [*KINDS][len(TROUBLES) :])):
            rows = [line for kind in kinds if kind in self.found for line in self._row(kind)]
            lines += ["", title, *rows] if rows else []
        left_out = self.images.left_out
        if left_out.counts:
            lines += ["", "Left out by the scan"]
            for reason, count in left_out.counts.most_common():
                names = ", ".join(map(repr, left_out.examples[reason]))
                lines.append(f"  {reason:<22} {count:>9,}           {names}")
        return "\n".join(lines)

    def _row(self, kind: str) -> Iterator[str]:
        places = self.found[kind]
        names = ", ".join(repr(self.images.name(int(place))) for place in places[:EXAMPLES])
        more = ", ..." * (len(places) > EXAMPLES)
        yield f"  {kind:<22} {len(places):>9,} {len(places) / len(self.places):>8.2%}  {names}{more}"
        yield f"  {'':<22} {KINDS[kind].meaning}" + (f"; {KINDS[kind].advice}" if KINDS[kind].advice else "")

    def json(self) -> str:
        """Everything, with every name; names are escaped as in a quarantine list."""
        name = self.images.name
        findings = {
            kind: {
                "count": len(places),
                "meaning": KINDS[kind].meaning,
                "images": [
                    {"name": escaped(name(place)), "reason": self.reason(kind, place)} for place in places.tolist()
                ],
            }
            for kind, places in self.found.items()
        }
        facts = {
            "images": len(self.images),
            "looked_at": len(self.places),
            "bad_fraction": self.bad_fraction,
            "fingerprint": self.images.fingerprint(),
            "bytes": int(self.sizes["size"].sum()),
            "sizes": self.sides(),
            "findings": findings,
            "left_out": dict(self.images.left_out.counts),
        }
        return json.dumps(facts, indent=1)


def inspect_images(images: Images, *, sample: int | None = None, seed: int = 0, workers: int = 0) -> Inspection:
    """Reads images once, and tells what is in them.

    Args:
        sample: how many to look at, drawn with `seed`; duplicates are looked for among all only.
        workers: processes. With 0 this process decodes, and dies with a decoder that crashes; others are replaced, and
            the file is named. A script that asks for workers needs `if __name__ == "__main__":`.

    Raises:
        ValueError: when a number is out of bounds.
    """
    if (sample is not None and sample < 1) or workers < 0:
        raise ValueError(f"sample is {sample}, workers {workers}; wanted a sample of 1 or more, and 0 workers or more")
    places = np.arange(len(images))
    if sample is not None and sample < len(images):
        places = np.sort(np.random.default_rng(seed).choice(len(images), sample, replace=False))
    hashes = len(places) == len(images)
    looks = np.zeros(len(places), LOOKS)
    troubles: dict[int, str] = {}
    reasons: dict[int, str] = {}
    row_of = None if hashes else {place: row for row, place in enumerate(places.tolist())}
    for place, seen in _looks(images, places, hashes, workers):
        if not isinstance(seen, Lost):
            looks[place if row_of is None else row_of[place]] = seen[: len(LOOKS.fields or ())]
        if seen.trouble:
            troubles[place], reasons[place] = seen.trouble, seen.reason
    found = {trouble: _sorted(place for place in troubles if troubles[place] == trouble) for trouble in TROUBLES}
    found |= {kind: places[(looks["oddities"] & oddity) > 0] for oddity, kind in ODDITIES.items()}
    same_as: dict[int, int] = {}
    if hashes:
        found[DUPLICATE], found[NEAR] = _repeated(looks, same_as)
    found = {kind: found[kind] for kind in KINDS if len(found.get(kind, ()))}
    return Inspection(images=images, places=places, sizes=looks, found=found, reasons=reasons, same_as=same_as)


def _looks(images: Images, places: NDArray[np.int64], hashes: bool, workers: int) -> Iterator[tuple[int, Look | Lost]]:
    task = functools.partial(look, images, hashes=hashes)
    found: Iterator[tuple[int, Look | Lost]]
    if workers:
        found = in_workers(task, places, workers, PATIENCE)
    else:
        found = ((place, task(place)) for place in places.tolist())
    # silent where stderr is no terminal, and for a glance that takes a second
    yield from tqdm(found, "inspect", len(places), unit=" images", disable=None, delay=2, leave=False)


def _repeated(looks: NDArray[Any], same_as: dict[int, int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Places of exact and of near duplicates; fills in what they repeat. Images of one colour are near to nobody."""
    fine = np.flatnonzero(looks["height"] > 0)
    first = fine[first_equal(looks["pixels"][fine])]
    exact = fine[first != fine]
    same_as |= dict(zip(exact.tolist(), first[first != fine].tolist(), strict=True))
    vivid = fine[(first == fine) & (looks["oddities"][fine] & Oddity.CONSTANT == 0)]
    first = vivid[first_near(looks["across"][vivid], looks["down"][vivid])]
    near = vivid[first != vivid]
    same_as |= dict(zip(near.tolist(), first[first != vivid].tolist(), strict=True))
    return exact, near


def _sorted(places: Iterator[int]) -> NDArray[np.int64]:
    return np.array(sorted(places), np.int64)


def _bytes(count: int) -> str:
    size, units = float(count), ["bytes", "KB", "MB", "GB", "TB"]
    while size >= 1000 and len(units) > 1:
        size /= 1000
        units.pop(0)
    return f"{size:.3g} {units[0]}"
