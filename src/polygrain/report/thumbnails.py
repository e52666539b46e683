"""All images of a report in a few large pictures, each cut to what the encoder sees of it."""

import base64
import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from polygrain.data.centred import Box
from polygrain.report.figures import three_channels, to_picture

COLUMNS, ROWS = 16, 16  # of thumbnails in a sheet
QUALITY = 78  # of WebP
SIDES = ((600, 128), (1200, 112), (2500, 96), (5000, 72))  # most images, side in pixels


class Sheets(NamedTuple):
    """Thumbnail i stands in sheet i // 256, row by row."""

    side: int  # pixels
    files: list[bytes]  # WebP

    def facts(self) -> dict[str, Any]:
        return {"side": self.side, "columns": COLUMNS, "rows": ROWS}


def allowed_side(count: int) -> int:
    """Pixels of a thumbnail's side, the fewer the more there are."""
    return next(side for most, side in SIDES if count <= most)


def thumbnail(image: Tensor, box: Box, side: int) -> Image.Image:
    """What lies in the box of an image (C, H, W) uint8."""
    whole = to_picture(three_channels(image))
    corners = (box.left, box.top, box.left + box.width, box.top + box.height)
    return whole.resize((side, side), Image.Resampling.LANCZOS, box=corners)


def sheets(thumbnails: Sequence[Image.Image], side: int) -> Sheets:
    files = []
    for start in range(0, len(thumbnails), COLUMNS * ROWS):
        some = thumbnails[start : start + COLUMNS * ROWS]
        sheet = Image.new("RGB", (COLUMNS * side, -(-len(some) // COLUMNS) * side))
        for place, picture in enumerate(some):
            if picture.width != side:
                picture = picture.resize((side, side), Image.Resampling.LANCZOS)
            sheet.paste(picture, (place % COLUMNS * side, place // COLUMNS * side))
        file = io.BytesIO()
        sheet.save(file, "WEBP", quality=QUALITY, method=4)
        files.append(file.getvalue())
    return Sheets(side, files)


def packed(values: NDArray[Any], kind: str) -> str:
    """Numbers as text for a typed array of the page: little-endian, of NumPy's kind ("u2", "i1" ...)."""
    return base64.b64encode(np.ascontiguousarray(values).astype("<" + kind).tobytes()).decode()
