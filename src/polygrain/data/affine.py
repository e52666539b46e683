"""Affine transforms of an image with Pillow's interpolation, computed for one box of the result."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from polygrain.data.boxes import Box, Part
from polygrain.data.photometric import as_bytes

Matrix = tuple[float, float, float, float, float, float]  # (a, b, c, d, e, f)


def transform(image: Part, box: Box, matrix: Matrix, *, bicubic: bool, fill: Sequence[int]) -> Tensor:
    """What `box` shows of the whole transformed image, with `fill` where that shows what lies outside: (h, w, 4).

    Follows Pillow: a pixel's centre is at its index + 1/2, beyond its edge the image goes on as it ends, the cubic has
    a = -1 (unlike Pillow's own resizing), and results are rounded down.

    Args:
        image: at least what `needed` says.
        fill: of the three or four channels.
        matrix: the result's (x, y) shows the source's (a x + b y + c, d x + e y + f).
    """
    a, b, c, d, e, f = matrix
    device, part = image.pixels.device, image.box
    x = torch.arange(box.left, box.right, device=device)  # (w,)
    y = torch.arange(box.top, box.bottom, device=device)[:, None]  # (h, 1)
    shift_x, shift_y = _shift(x, a, y, b, c), _shift(y, e, x, d, f)
    column, taps_x = _taps(x, shift_x, bicubic)
    row, taps_y = _taps(y, shift_y, bicubic)
    words = image.pixels.view(torch.int32).flatten()  # one look-up serves all channels of a pixel

    def line(down: int) -> Tensor:
        start = (row + (down - part.top)).clamp_(0, part.height - 1).mul_(part.width)
        return _interpolate(
            lambda right: _values(words, start + (column + (right - part.left)).clamp_(0, part.width - 1)), taps_x
        )

    shown = as_bytes(_interpolate(line, taps_y).clamp_(0, 255)).view(torch.int32)  # (h, w)
    beyond = torch.tensor([*fill, 0][:4], dtype=torch.uint8, device=device).view(torch.int32)
    for own, shift, end in ((x, shift_x, image.width), (y, shift_y, image.height)):
        if shift.any():
            first, last = (-0.5 - shift).ceil().int(), (end - 0.5 - shift).ceil().int()  # pixels from within the image
            shown = torch.where((own >= first) & (own < last), shown, beyond)
    return shown.view(torch.uint8).view(box.height, box.width, 4)


def needed(box: Box, matrix: Matrix, height: int, width: int) -> Box:
    """All of the source that `box` of the result is made of."""
    a, b, c, d, e, f = matrix
    corners = [(x, y) for x in (box.left, box.right) for y in (box.top, box.bottom)]
    xs, ys = [a * x + b * y + c for x, y in corners], [d * x + e * y + f for x, y in corners]
    left, right = (min(max(round(x), 0), width) for x in (min(xs) - 3, max(xs) + 3))
    top, bottom = (min(max(round(y), 0), height) for y in (min(ys) - 3, max(ys) + 3))
    left, top = min(left, width - 1), min(top, height - 1)  # one pixel, where all shown lies outside
    return Box(top, left, max(bottom - top, 1), max(right - left, 1))


def _shift(own: Tensor, slope: float, other: Tensor, cross: float, start: float) -> Tensor:
    """How far from its own place along one axis a pixel comes from: (h, w), (h, 1) or (w,), float64."""
    shift = (other.double() + 0.5) * cross + start
    return shift if slope == 1 else shift + (own + 0.5) * (slope - 1)


Taps = list[tuple[int, Tensor]]  # pixels beside the first one, and their weights


def _taps(own: Tensor, shift: Tensor, bicubic: bool) -> tuple[Tensor, Taps]:
    """The pixel at or before the place to interpolate (h, w), and what its neighbours count there."""
    whole = shift.floor()
    t = (shift - whole).float()
    pixel = (own + whole).int()
    if not t.any():
        return pixel, []
    weights = {1: t}
    if bicubic:
        square, cube = t * t, t * t * t
        weights = {-1: 2 * square - cube - t, 1: t + square - cube, 2: cube - square}
    return pixel, [(offset, _four_times(weight)) for offset, weight in weights.items()]


def _four_times(weight: Tensor) -> Tensor:
    """Each column for the four channels of a pixel."""
    return weight if weight.shape[-1] == 1 else weight[..., None].expand(*weight.shape, 4).flatten(-2)


def _interpolate(at: Callable[[int], Tensor], taps: Taps) -> Tensor:
    """The first pixel and what the others differ from it: exact where all are equal."""
    first = at(0)
    total = first.clone()
    for offset, weight in taps:
        total.add_(at(offset).sub_(first).mul_(weight))
    return total


def _values(words: Tensor, index: Tensor) -> Tensor:
    """(h, 4 w) channels of the pixels at `index` (h, w)."""
    return words.index_select(0, index.flatten()).view(torch.uint8).view(len(index), -1).float()
