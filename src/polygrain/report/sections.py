"""What a report consists of; each function makes one section and can be used alone."""

from collections.abc import Mapping, Sequence
from html import escape

from PIL import Image
from torch import Tensor

from polygrain.losses.neighbours import nearest
from polygrain.report.figures import data_uri, to_picture
from polygrain.report.html import Section
from polygrain.report.patch_colours import fit_basis, patch_colours

THUMBNAIL = 128  # pixels


def numbers(
    scores: Mapping[str, Mapping[str, float]],
    *,
    chance: Mapping[str, float] | None = None,
    title: str = "What it learned",
    about: str = "",
) -> Section:
    """A table of shares in [0, 1]: one row for each encoder, one column for each measure; the best is marked.

    Args:
        scores: by row and column; every row has the columns of the first.
        chance: by column, where it has a chance level.
    """
    columns = list(next(iter(scores.values())))
    best = {column: max(row[column] for row in scores.values()) for column in columns}
    heads = []
    for column in columns:
        level = f"<small>chance {chance[column]:.1%}</small>" if chance and column in chance else ""
        heads.append(f"<th scope=col>{escape(column)}{level}</th>")
    rows = []
    for name, row in scores.items():
        cells = "".join(_cell(row[column], row[column] == best[column]) for column in columns)
        rows.append(f"<tr><th scope=row>{escape(name)}</th>{cells}</tr>")
    table = (
        f"<table class=numbers><thead><tr><th></th>{''.join(heads)}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )
    return Section(title, about, f"<div class=scroll>{table}</div>")


def _cell(share: float, best: bool) -> str:
    bar = f"<span class=track><i style='width:{share:.1%}'></i></span>"
    return f"<td{' class=best' if best else ''}><b>{share:.1%}</b>{bar}</td>"


def neighbours(
    pictures: Sequence[Tensor],
    features: Mapping[str, Tensor],
    queries: Sequence[int],
    *,
    labels: Sequence[Tensor] = (),
    count: int = 7,
    title: str = "Nearest neighbours",
    about: str = "",
) -> Section:
    """Some images and the images nearest to them by cosine, one strip for each encoder.

    Args:
        pictures: n images, (3, H, W) uint8 each.
        features: by name of the encoder, (n, D) of the same images.
        queries: positions of the images asked about; they are left out of their own neighbours.
        labels: classes (n,) from fine to coarse, at most two: green frames share the first, amber ones the second.
    """
    uris: dict[int, str] = {}

    def thumbnail(i: int) -> str:
        if i not in uris:
            uris[i] = data_uri(to_picture(pictures[i]), side=THUMBNAIL)
        return uris[i]

    found = {}
    for name, vectors in features.items():
        rows = nearest(vectors[list(queries)], vectors, count + 1).rows.tolist()
        found[name] = [[i for i in row if i != q][:count] for q, row in zip(queries, rows, strict=True)]
    blocks = []
    for place, query in enumerate(queries):
        strips = "".join(
            f"<div class=row><span>{escape(name)}</span><div class=strip>"
            + "".join(
                f"<img class='{frame(query, i, labels)}' alt='neighbour' src='{thumbnail(i)}'>" for i in rows[place]
            )
            + "</div></div>"
            for name, rows in found.items()
        )
        blocks.append(f"<div class=query><img alt='query' src='{thumbnail(query)}'><div>{strips}</div></div>")
    kinds = [("good", "same class"), ("near", "same coarse class"), ("bad", "another class")]
    key = "".join(
        f"<span><i style='--c:var(--{colour})'></i>{words}</span>"
        for colour, words in kinds
        if labels and (colour != "near" or len(labels) > 1)
    )
    body = (f"<p class=key>{key}</p>" if key else "") + f"<div class=queries>{''.join(blocks)}</div>"
    return Section(title, about, body)


def frame(query: int, other: int, labels: Sequence[Tensor]) -> str:
    """Style class of a neighbour's frame; none without labels."""
    for level, name in zip(labels, ("same", "near"), strict=False):
        if level[query] == level[other]:
            return name
    return "other" if labels else ""


def patch_maps(
    pictures: Sequence[Tensor],
    patches: Mapping[str, Tensor],
    grid: Mapping[str, tuple[int, int]],
    *,
    title: str = "What each patch sees",
    about: str = "",
) -> Section:
    """Each image beside its patches, coloured by their first three principal components.

    Args:
        pictures: n images, (3, H, W) uint8 each.
        patches: by name of the encoder, (n, N, D) of the same images; one basis for all images of an encoder.
        grid: rows, columns of the patches by name.
    """
    maps = {name: patch_colours(fit_basis(vectors), vectors, grid[name]) for name, vectors in patches.items()}
    blocks = []
    for i, picture in enumerate(pictures):
        cells = [f"<figure><img alt='image' src='{data_uri(to_picture(picture), side=2 * THUMBNAIL)}'></figure>"]
        for name, colours in maps.items():
            uri = data_uri(to_picture(colours[i]), lossless=True)
            cells.append(f"<figure><img class=cells alt='{escape(name)}' src='{uri}'></figure>")
        blocks.append(f"<div class=map>{''.join(cells)}</div>")
    names = "".join(f"<span>{escape(name)}</span>" for name in ("image", *maps))
    heads = f"<div class='map heads'>{names}</div>"
    return Section(title, about, f"<div class=maps>{heads}{heads}{''.join(blocks)}</div>")


def picture(image: Image.Image | bytes, *, title: str, about: str = "") -> Section:
    """A ready-made picture: a Pillow image, or the bytes of a PNG."""
    uri = data_uri(image) if isinstance(image, bytes) else data_uri(image, side=2240)
    return Section(title, about, f"<img class=picture alt='{escape(title)}' src='{uri}'>")
