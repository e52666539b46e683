"""Pictures of views: where crops lie in their image, and which patches of two of them match."""

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from matplotlib.patches import FancyArrowPatch, Rectangle
from numpy.typing import NDArray
from torch import Tensor

from polygrain.data.photometric import IMAGENET, Normalisation
from polygrain.losses.matching import Matches
from polygrain.report.figures import three_channels
from polygrain.report.pairs import Describes, Shown, look
from polygrain.views import Crops, View

COLOURS = ("#e6550d", "#2b7bba", "#2ca25f", "#8e5ea2", "#b59410")  # of the requests, then again
INK, FAINT = "#22252a", "#8a9099"
WIDTH, TITLE = 15.0, 0.4  # inches
GAP = 0.3  # between two crops, as a share of their side
ABREAST = 8  # crops in a row


def draw_matches(
    encoder: Describes,
    images: Sequence[Tensor],
    crops: Sequence[Crops],
    *,
    seed: int = 0,
    normalisation: Normalisation = IMAGENET,
    project: Callable[[Tensor], Tensor] | None = None,
    kept: int = 20,
    all_crops: bool = True,
) -> Figure:
    """The picture of VICRegL's matching (arXiv:2210.01571, fig. 1), for any crops of any images and any encoder.

    Args:
        images: (C, H, W) uint8 each; image i gets the views that a run with this seed gives its image i at first.
        project: from patch vectors (B, N, D) to those that are compared; the objective's projector, say.
        kept: lines to draw, at most.
        all_crops: also show every crop as it is fed in.
    """
    shown = [
        look(encoder, image, crops, seed=seed, number=i, normalisation=normalisation, project=project, kept=kept)
        for i, image in enumerate(images)
    ]
    return drawn(shown, normalisation, all_crops)


def drawn(shown: Sequence[Shown], normalisation: Normalisation, all_crops: bool) -> Figure:
    """One picture of several images."""
    heights = [sum(_heights(one)[: 1 + all_crops]) for one in shown]
    figure = Figure(figsize=(WIDTH, sum(heights)), facecolor="white", layout="constrained")
    rows = figure.subfigures(len(shown), 1, squeeze=False, height_ratios=heights)[:, 0]
    for row, one in zip(rows, shown, strict=True):
        show(row, one, normalisation, all_crops)
    return figure


def png(figure: Figure, *, dots_per_inch: int = 100) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=dots_per_inch)
    return file.getvalue()


def show(figure: FigureBase, shown: Shown, normalisation: Normalisation, all_crops: bool) -> None:
    """The image with all boxes and the matches by each criterion; under them every crop, where asked for."""
    above, *below = figure.subfigures(1 + all_crops, 1, squeeze=False, height_ratios=_heights(shown)[: 1 + all_crops])[
        :, 0
    ]
    columns = above.subplots(1, 1 + len(shown.matches), width_ratios=_widths(shown))
    _show_boxes(columns[0], shown)
    for axes, (criterion, matches) in zip(columns[1:], shown.matches.items(), strict=True):
        away = shown.distances[criterion][0, matches.inputs[0], matches.candidates[0]]
        _show_matches(axes, shown, matches, away.cpu().numpy(), normalisation)
        _title(axes, f"{matches.inputs.shape[1]} nearest matches by {criterion}: blue near, red far")
    for rest in below:
        _show_crops(rest, shown, normalisation)


def _widths(shown: Shown) -> list[float]:
    """Of the image and the pairs of crops, all equally high, in heights."""
    height, width = shown.image.shape[1:]
    return [width / height, *[2 + GAP] * len(shown.matches)]


def _heights(shown: Shown) -> tuple[float, float]:
    """Of the upper and the lower part, in inches."""
    crops = sum(len(views) for views in shown.views.values())
    side = WIDTH / min(crops, ABREAST)
    return 0.98 * WIDTH / sum(_widths(shown)) + TITLE, -(-crops // ABREAST) * (side + TITLE - 0.1)


def _show_boxes(axes: Axes, shown: Shown) -> None:
    axes.imshow(three_channels(shown.image).permute(1, 2, 0).cpu().numpy())
    for colour, (_, views) in zip(_colours(shown), shown.views.items(), strict=True):
        for view in views:
            of_pair = any(view is one for one in shown.pair)
            width = 2.6 if of_pair else 1.0
            for line, edge in ((width + 1.6, "white"), (width, colour)):
                axes.add_patch(_rectangle(view, edgecolor=edge, linewidth=line, alpha=1 if of_pair else 0.75))
    _bare(axes)
    _title(axes, "crops (thick: matched)")


def _rectangle(view: View, **style: Any) -> Rectangle:
    top, left, height, width = view.box[0].tolist()
    return Rectangle((left - 0.5, top - 0.5), width, height, fill=False, **style)


def _show_matches(
    axes: Axes, shown: Shown, matches: Matches, away: NDArray[np.float32], normalisation: Normalisation
) -> None:
    size = shown.pair[0].pixels.shape[-1]
    start = (0.0, size * (1 + GAP))  # where each crop begins
    for view, left in zip(shown.pair, start, strict=True):
        axes.imshow(to_pixels(view, normalisation), extent=(left, left + size, size, 0), interpolation="nearest")
    ends = [_places(index[0], grid, size) for index, grid in zip(matches, shown.grids, strict=True)]  # (M, 2) x, y
    cells = [(size / columns, size / rows) for rows, columns in shown.grids]
    for a, b, colour in zip(*ends, by_distance(away), strict=True):
        places = [(float(x + left), float(y)) for (x, y), left in zip((a, b), start, strict=True)]
        for (x, y), (width, height) in zip(places, cells, strict=True):
            for line, edge in ((2.6, "white"), (1.5, colour)):
                corner = (x - width / 2, y - height / 2)
                axes.add_patch(Rectangle(corner, width, height, fill=False, edgecolor=edge, linewidth=line))
        bend = f"arc3,rad={0.16 * (0.5 - a[0] / size)}"  # so that lines between the same rows part
        for line, edge, strength in ((2.4, "white", 0.5), (1.3, colour, 1.0)):
            axes.add_patch(
                FancyArrowPatch(
                    *places,
                    arrowstyle="-",
                    connectionstyle=bend,
                    shrinkA=0,
                    shrinkB=0,
                    linewidth=line,
                    color=edge,
                    alpha=strength,
                )
            )
        axes.plot(*zip(*places, strict=True), "o", color=colour, markersize=3.2, markeredgecolor="white")
    axes.set(xlim=(0, start[1] + size), ylim=(size, 0), aspect="equal")
    _bare(axes)


def by_distance(away: NDArray[np.float32]) -> NDArray[np.float64]:
    """Colours (M, 4) from blue, the least of these distances (M,), to red, the largest; blue where all are equal."""
    if not len(away):
        return np.zeros((0, 4))
    spread = float(np.ptp(away))
    shares = (away - away.min()) / spread if spread > 0 else np.zeros_like(away)
    return np.asarray(colormaps["turbo"](0.06 + 0.88 * shares))


def _places(index: Tensor, grid: tuple[int, int], size: int) -> NDArray[np.float64]:
    """Centres (M, 2) x, y of some cells of a grid laid over a crop, in pixels of the crop as it is shown."""
    rows, columns = grid
    row, column = index.cpu().numpy() // columns, index.cpu().numpy() % columns
    return np.stack([(column + 0.5) * size / columns, (row + 0.5) * size / rows], axis=1)


def _show_crops(figure: FigureBase, shown: Shown, normalisation: Normalisation) -> None:
    crops = [
        (name, j, view, colour)
        for colour, (name, views) in zip(_colours(shown), shown.views.items(), strict=True)
        for j, view in enumerate(views)
    ]
    columns = min(len(crops), ABREAST)
    rows = -(-len(crops) // columns)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (name, j, view, colour) in zip(grid, crops, strict=False):
        axes.imshow(to_pixels(view, normalisation), interpolation="nearest")
        facts = [fact for fact, true in (("strong", view.strong), ("mirrored", view.flipped)) if bool(true[0])]
        axes.set_title(" ".join([f"{name} {j + 1}"] + [f"· {fact}" for fact in facts]), fontsize=8, color=INK, pad=3)
        _bare(axes)
        for spine in axes.spines.values():
            spine.set(visible=True, color=colour, linewidth=2)
    for axes in grid[len(crops) :]:
        axes.axis("off")


def to_pixels(view: View, normalisation: Normalisation) -> NDArray[np.float32]:
    """(H, W, 3) in 0..1; what lies beyond (noise of erased boxes) is cut."""
    mean, std = (torch.tensor(v, device=view.pixels.device).view(-1, 1, 1) for v in normalisation)
    seen = three_channels((view.pixels[0] * std + mean).clamp(0, 1))
    pixels: NDArray[np.float32] = seen.permute(1, 2, 0).cpu().numpy()
    return pixels


def _colours(shown: Shown) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(len(shown.views))]


def _bare(axes: Axes) -> None:
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _title(axes: Axes, text: str) -> None:
    axes.set_title(text, fontsize=9.5, color=INK, loc="left", pad=5)
