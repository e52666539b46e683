"""Pictures and charts as text that stands inside an HTML page."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

# colours of the charts, which the page replaces by those of its light or dark dress
INK, GRID, SERIES = "#010101", "#020202", ("#030301", "#030302")
DRESS = {INK: "var(--muted)", GRID: "var(--grid)", SERIES[0]: "var(--series-1)", SERIES[1]: "var(--series-2)"}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "polygrain",
    "font.size": 8.5,
    "axes.linewidth": 0.8,
    "axes.edgecolor": GRID,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.formatter.limits": (-3, 5),
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "text.color": INK,
}
SMOOTH_FROM = 60  # points


def line_chart(lines: Mapping[str, tuple[Sequence[float], Sequence[float]]], *, last_step: float) -> str:
    """One or two lines of (steps, values) as inline SVG; many points are drawn faint with a running mean above.

    Args:
        last_step: where the axis of steps ends, so that charts of one run can be compared.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.4, 1.9), layout="constrained")
        axes = figure.add_subplot()
        for (steps, values), colour in zip(lines.values(), SERIES, strict=False):
            smooth = len(values) >= SMOOTH_FROM
            width, alpha = (1.0, 0.3) if smooth else (1.6, 1.0)
            axes.plot(steps, values, color=colour, linewidth=width, alpha=alpha, marker="o" if len(steps) == 1 else "")
            if smooth:
                mean = running_mean(values)
                left_out = (len(values) - len(mean)) // 2
                axes.plot(steps[left_out : left_out + len(mean)], mean, color=colour, linewidth=1.6)
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.margins(y=0.08)
        axes.set_xlim(0, 1.01 * last_step)
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    for colour, name in DRESS.items():
        svg = svg.replace(colour, name)
    return svg


def running_mean(values: Sequence[float]) -> NDArray[np.float64]:
    """Mean over a window of a tenth of the values around each that has so many: fewer come out than go in.

    A narrower window near the ends would end every curve in a spike of noise.
    """
    reach = len(values) // 20
    sums = np.concatenate([[0.0], np.cumsum(values)])
    return np.asarray((sums[2 * reach + 1 :] - sums[: len(values) - 2 * reach]) / (2 * reach + 1))


def three_channels(image: Tensor) -> Tensor:
    """(C, H, W) as (3, H, W): of more channels the first three, of fewer the first alone."""
    return image[:3] if len(image) >= 3 else image[:1].expand(3, -1, -1)


def to_picture(pixels: Tensor) -> Image.Image:
    """(3, H, W) uint8 to a Pillow image."""
    return Image.fromarray(np.ascontiguousarray(pixels.permute(1, 2, 0).cpu().numpy()))


def data_uri(picture: Image.Image | bytes, *, side: int | None = None, lossless: bool = False) -> str:
    """A picture as a `data:` address: PNG bytes as they are, a Pillow image as JPEG or, lossless, as PNG.

    Args:
        side: largest side in pixels; a larger picture is made smaller.
    """
    if isinstance(picture, bytes):
        return "data:image/png;base64," + base64.b64encode(picture).decode()
    if side is not None and max(picture.size) > side:
        picture = picture.copy()
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    if lossless:
        picture.save(file, "PNG", optimize=True)
    else:
        picture.convert("RGB").save(file, "JPEG", quality=90, subsampling=0)
    kind = "png" if lossless else "jpeg"
    return f"data:image/{kind};base64," + base64.b64encode(file.getvalue()).decode()
