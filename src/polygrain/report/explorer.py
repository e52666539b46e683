"""The part of a report that answers clicks: map, neighbours, regions, groups, near copies."""

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from polygrain.report.codes import QUERIES
from polygrain.report.gathering import Seen, Shown, tags
from polygrain.report.html import Section
from polygrain.report.mapping import Map, tsne_map
from polygrain.report.thumbnails import packed

SCRIPTS = Path(__file__).with_name("scripts")
ORDER = ("pictures.js", "inspector.js", "sections.js")
ODD = 12  # pairs, and outliers, that are shown
OUTLIERS_BY = 10  # neighbours

INSPECTOR = """<aside id=inspector aria-label="Chosen image">
<div class=chosen><canvas id=large tabindex=0 aria-label="Chosen image; arrow keys choose a patch"></canvas>
<div><b id=chosen-label></b><span id=chosen-name></span>
<p class=about>Click any image for its neighbours, and a patch of this one for the regions most like it.</p></div></div>
<h3>Nearest images</h3><div id=similar aria-live=polite></div>
<p id=hint class=note>No patch is chosen.</p>
<div id=regions hidden><h3>Nearest regions, one of each other image</h3><div class=strips aria-live=polite></div></div>
</aside>
<div id=tip hidden></div>"""


def sections(models: Sequence[Seen], labelled: bool) -> list[Section]:
    """The left-hand sections; the page's script fills them."""
    frames = "Green frames share the label of the chosen image, red ones do not." if labelled else ""
    by_label = "<label><input type=radio name=hues value=label> labels</label>"
    controls = (
        f"<div class=controls><span class=choose></span><span>colour {by_label}"
        "<label><input type=radio name=hues value=group> groups</label></span>"
        "<label><input type=checkbox name=pictures value=pictures> pictures</label></div>"
    )
    agreement = ", ".join(f"{escape(seen.name)} {seen.code_agreement:.0%}" for seen in models)
    return [
        Section(
            "Map",
            "Every image as a point: what lies close, the model finds alike. Distances between far points say nothing.",
            f"<div id=plane>{controls}<canvas tabindex=0 aria-label='t-SNE map; arrow keys walk from image to image'>"
            "</canvas><p class=figures></p><div class=legend></div></div>",
        ),
        Section(
            "Images",
            f"Click one: its nearest images, by cosine, stand beside it. {frames}",
            "<div class=controls><input id=search type=search placeholder='name or class' aria-label='Filter images'>"
            "</div><div id=wall></div>"
            "<p class=note>Regions are searched by codes of a few bytes; of the ten nearest by the full vectors, one "
            f"of each other image, they find: {agreement} (of {QUERIES} patches, among all images).</p>",
        ),
        Section(
            "Groups",
            "k-means of the features; the images nearest to the centre of a group come first.",
            "<div class=controls><span class=choose></span></div><div id=contacts></div>",
        ),
        Section(
            "Near copies and outliers",
            "The pairs with the smallest angle between their features, which may be copies, and the images farthest "
            "from their ten nearest (mean angle): look at them before you trust a number.",
            "<div class=controls><span class=choose></span></div><p class=figures></p><h3>Most alike</h3>"
            "<div id=copies class=odd></div><h3>Least like any other</h3><div id=outliers class=odd></div>",
        ),
    ]


def payload(shown: Shown, models: Sequence[Seen], seed: int) -> str:
    """The elements that hold the data, and the script."""
    labels = None if shown.labels is None else packed(shown.labels, "i2")
    data = {
        "names": shown.names,
        "labels": labels,
        "classes": shown.classes,
        "sheet": shown.sheets.facts(),
        "models": [
            facts(seen, shown, seed) | {"tag": tag}
            for seen, tag in zip(models, tags([seen.name for seen in models]), strict=True)
        ],
    }
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    text = text.encode("utf-8", "backslashreplace").decode()  # names of files may hold any byte
    parts = [f'<script type="application/json" id=data>{text}</script>']
    stored = [(f"sheet-{s}", packed(np.frombuffer(file, np.uint8), "u1")) for s, file in enumerate(shown.sheets.files)]
    stored += [(f"codes-{m}", packed(seen.codes.numpy(), "i1")) for m, seen in enumerate(models)]
    stored += [(f"rest-{m}", packed(seen.rest.numpy(), "u1")) for m, seen in enumerate(models)]
    parts += [f'<script type="text/plain" id={name}>{content}</script>' for name, content in stored]
    scripts = "\n".join((SCRIPTS / name).read_text(encoding="utf-8") for name in ORDER)
    return "\n".join([*parts, f"<script>\n{scripts}</script>"])


def facts(seen: Seen, shown: Shown, seed: int) -> dict[str, Any]:
    """What the script must know of one model."""
    places, told = _map(seen, shown.labels, seed)
    order = np.lexsort((seen.distances.numpy(), seen.groups.numpy()))
    return {
        "name": seen.name,
        "grid": seen.grid,
        "dims": seen.codes.shape[-1],
        "step": seen.step,
        "k": seen.neighbours.shape[1],
        "neighbours": packed(seen.neighbours.numpy(), "u2"),
        "cosines": packed((seen.cosines.clamp(-1, 1) * 1e4).round().numpy(), "i2"),
        "order": packed(order, "u2"),
        "sizes": np.bincount(seen.groups.numpy()).tolist(),
        "map": places,
        "mapTold": told,
        "share": _share(seen.share),
        "duplicates": duplicates(seen),
        "outliers": outliers(seen),
        "typical": round(float(angles(seen.cosines[:, 0]).median()), 2),
    }


def _share(share: NDArray[np.float64]) -> float | str:
    """One number where it is the same for all images."""
    return float(share[0]) if np.ptp(share) < 1e-9 else packed(share, "f4")


def _map(seen: Seen, labels: NDArray[np.int64] | None, seed: int) -> tuple[str | None, str]:
    try:
        found = tsne_map(seen.pooled, labels, seed=seed)
    except ValueError as error:
        return None, f"No map: {error}."
    low, high = found.places.min(0), found.places.max(0)
    return packed(((found.places - low) / (high - low) * 65535).round(), "u2"), in_words(found)


def in_words(found: Map) -> str:
    parts = []
    if found.purity is not None and found.feature_purity is not None:
        parts.append(
            f"10-NN purity {found.purity:.1%} on the map, {found.feature_purity:.1%} among the features themselves."
        )
    parts.append(f"Trustworthiness {found.trust:.3f}; of the first two principal components {found.pca_trust:.3f}.")
    return " ".join(parts)


def duplicates(seen: Seen) -> list[tuple[int, int, float]]:
    """The pairs of images with the smallest angle between their features, in degrees."""
    away = angles(seen.cosines)
    pairs = {}
    for i, (rows, each) in enumerate(zip(seen.neighbours.tolist(), away.tolist(), strict=True)):
        for j, angle in zip(rows, each, strict=True):
            pairs[min(i, j), max(i, j)] = angle
    rising = sorted(pairs.items(), key=lambda pair: (pair[1], pair[0]))[:ODD]
    return [(i, j, round(angle, 2)) for (i, j), angle in rising]


def outliers(seen: Seen) -> list[tuple[int, float]]:
    """The images with the largest mean angle to their ten nearest, in degrees."""
    mean = angles(seen.cosines)[:, :OUTLIERS_BY].mean(1)
    return [(int(i), round(float(mean[i]), 2)) for i in mean.argsort(descending=True, stable=True)[:ODD]]


def angles(cosines: Tensor) -> Tensor:
    """In degrees; where all features point nearly the same way, cosines of 0.99 and 1.00 hide what angles tell."""
    return torch.rad2deg(torch.acos(cosines.double().clamp(-1, 1)))


def describe_groups(models: Sequence[Seen]) -> str:
    counts = [int(seen.groups.max()) + 1 for seen in models]
    return f"{' and '.join(map(str, dict.fromkeys(counts)))} groups"
