"""What a model sees within an image: patch colours, segments, attention head by head, matches between two crops."""

import io
from collections.abc import Sequence
from html import escape

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from polygrain.data.centred import centred
from polygrain.evaluate.attention import Attention, has_attention, largest_mass, last_attention
from polygrain.evaluate.features import evaluating
from polygrain.parts.encoder import Encoder
from polygrain.parts.kmeans import kmeans
from polygrain.report.figures import data_uri, three_channels, to_picture
from polygrain.report.gathering import Seen
from polygrain.report.html import Section
from polygrain.report.matches import drawn, png
from polygrain.report.pairs import Shown, in_words, look
from polygrain.report.patch_colours import fit_basis, patch_colours
from polygrain.views import Crops

SEGMENTS = 6
MASS = 0.6  # of the attention of a head, as in DINO's figures
SIDE = 224  # pixels of the pictures beside the maps
MATCHED = 2  # images whose crops are drawn
LINES = 20  # of each criterion
OF_BLUR = 224  # size of the crops that the blurs of the recipes are for
ABREAST = 6  # columns of pictures up to which two tables stand side by side
COLOURS = np.array(
    [
        *([47, 111, 196], [217, 114, 43], [44, 145, 88], [143, 95, 163], [201, 162, 39], [90, 176, 190]),
        *([196, 84, 110], [126, 137, 60], [96, 96, 110], [222, 160, 190], [120, 80, 60], [160, 200, 120]),
    ],
    dtype=np.uint8,
)


def views_of(seen: Seen, chosen: Sequence[int]) -> Tensor:
    """Normalised pixels (m, C, S, S), as this model is shown them."""
    size, resize, normalisation = seen.views.size, seen.views.resize, seen.views.normalisation
    return torch.stack([centred(seen.views.images.decode(i), size, normalisation, resize) for i in chosen])


@torch.no_grad()
def patch_section(models: Sequence[Seen], chosen: Sequence[int]) -> Section:
    """Patch colours and segments of some images, model by model."""
    about = (
        "Each patch in the colours of the three strongest directions of the patch features, and in one of six k-means "
        "segments. Directions and segments are shared by all images of a model: what looks alike to it has one colour."
    )
    alike = len({(seen.views.size, seen.views.resize) for seen in models}) == 1
    columns: list[tuple[str, list[str]]] = []
    for seen in models:
        if not columns or not alike:
            name = "image" if alike else f"{seen.name}: image"
            columns.append((name, [_image(seen, pixels) for pixels in views_of(seen, chosen)]))
        with evaluating(seen.model.encoder):
            found = seen.model.encoder.to("cpu").features(views_of(seen, chosen))
        colours = patch_colours(fit_basis(found.patches), found.patches, found.grid)
        columns.append((f"{seen.name}: colours", [_cells(to_picture(one)) for one in colours]))
        maps = segments(found.patches, found.grid)
        columns.append((f"{seen.name}: segments", [_cells(Image.fromarray(COLOURS[one])) for one in maps]))
    return Section("Patches", about, _grid(columns))


def segments(patches: Tensor, grid: tuple[int, int], count: int = SEGMENTS) -> NDArray[np.int64]:
    """k-means of the directions of all patches (m, N, D) together: (m, rows, columns), the largest segment is 0."""
    flat = F.normalize(patches.flatten(0, 1).float(), dim=1)
    clusters = kmeans(flat, min(count, len(flat)), iterations=30, redos=3, seed=0).clusters
    rank = torch.bincount(clusters, minlength=count).argsort(descending=True, stable=True).argsort()
    return rank[clusters].view(len(patches), *grid).numpy()


def attention_section(models: Sequence[Seen], chosen: Sequence[int]) -> Section | None:
    """Attention of the last block, head by head, of the models that have one; None where none has."""
    blocks, without = "", []
    for seen in models:
        encoder = seen.model.encoder
        if not isinstance(encoder, Encoder) or not has_attention(encoder):
            without.append(seen.name)
            continue
        pixels = views_of(seen, chosen)
        attention = last_attention(encoder.to("cpu"), pixels)
        columns = [("image", [_image(seen, one) for one in pixels])]
        maps = attention.maps().numpy()
        columns += [(f"head {h + 1}", [_cells(heat(one)) for one in maps[:, h]]) for h in range(maps.shape[1])]
        columns.append(("together", [_cells(Image.fromarray(one)) for one in together(attention)]))
        blocks += f"<h3>{escape(seen.name)}: attention of {escape(attention.query)}</h3>{_grid(columns)}"
    if not blocks:
        return None
    about = (
        "Where each head of the last block looks: bright is much. The last picture gives every head a colour where it "
        f"has {MASS:.0%} of its attention; of several heads, the one that looks hardest."
    )
    told = f"<p class=note>No attention to show of {escape(', '.join(without))}.</p>" if without else ""
    return Section("Attention", about, blocks + told)


def heat(values: NDArray[np.float32]) -> Image.Image:
    """A map (rows, columns) from its least to its largest value."""
    spread = float(np.ptp(values))
    shares = (values - values.min()) / spread if spread > 0 else np.zeros_like(values)
    return Image.fromarray((colormaps["magma"](shares)[..., :3] * 255).astype(np.uint8))


def together(attention: Attention) -> NDArray[np.uint8]:
    """All heads in one picture of each image: (m, rows, columns, 3)."""
    maps = attention.maps()
    kept = torch.where(largest_mass(maps, MASS), maps / maps.sum((-2, -1), keepdim=True), 0.0)
    strength, head = kept.max(1)  # (m, rows, columns)
    colours = COLOURS[head.numpy() % len(COLOURS)]
    return np.where((strength > 0).numpy()[..., None], colours, np.uint8(24))


def matches_section(models: Sequence[Seen], chosen: Sequence[int]) -> Section:
    """Two crops of each image, and the patches that match by place and by likeness."""
    about = (
        "Two random crops of an image. Of the patches whose centre both show: the nearest by place, where they belong, "
        "and the nearest by the distance of their features (VICRegL's matching)."
    )
    body = ""
    for seen in models:
        shown = _pairs(seen, chosen)
        figure = Image.open(io.BytesIO(png(drawn(shown[:MATCHED], seen.views.normalisation, all_crops=False))))
        alt = escape(f"Matches of {seen.name}")
        body += (
            f"<h3>{escape(seen.name)}</h3><p class=note>{escape(in_words(shown))}</p>"
            f"<img class=picture alt='{alt}' src='{data_uri(figure)}'>"
        )
    return Section("Matches between two crops", about, body)


def _pairs(seen: Seen, chosen: Sequence[int]) -> list[Shown]:
    """Two crops of each image and what matches between them; the same crops for all models of one size."""
    size, recipes = seen.views.size, ("byol_a", "byol_b")
    crops = [Crops(name="crop", count=2, size=size, scale=(0.25, 1.0), recipes=recipes, blur_scale=size / OF_BLUR)]
    encoder = seen.model.encoder.to("cpu")
    with evaluating(encoder):
        return [
            look(
                encoder, seen.views.images.decode(i), crops, seed=0, number=i, normalisation=seen.views.normalisation,
                project=None, kept=LINES, shared=True,
            )
            for i in chosen
        ]  # fmt: skip


def _image(seen: Seen, pixels: Tensor) -> str:
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in seen.views.normalisation)
    plain = ((pixels * std + mean).clamp(0, 1) * 255).round().to(torch.uint8)
    return f"<img alt='image' src='{data_uri(to_picture(three_channels(plain)), side=SIDE)}'>"


def _cells(picture: Image.Image) -> str:
    return f"<img class=cells alt='' src='{data_uri(picture, lossless=True)}'>"


def _grid(columns: Sequence[tuple[str, Sequence[str]]]) -> str:
    """Pictures in rows, one for each image, under headings; two tables side by side where there is room."""
    count = len(columns[0][1])
    abreast = 2 if len(columns) <= ABREAST and count > 1 else 1
    share = -(-count // abreast)
    heads = "".join(f"<span>{escape(name)}</span>" for name, _ in columns)
    tables = ""
    for start in range(0, count, share):
        rows = "".join(
            "<div class=looks>" + "".join(pictures[i] for _, pictures in columns) + "</div>"
            for i in range(start, min(start + share, count))
        )
        tables += (
            f"<div class=table style='--columns:{len(columns)}'><div class='looks heads'>{heads}</div>{rows}</div>"
        )
    return f"<div class=abreast style='--abreast:{abreast}'>{tables}</div>"
