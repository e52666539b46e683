"""Whole numbers of more than eight bits brought to 0..255 by their depth."""

import numpy as np
from numpy.typing import NDArray

from polygrain.data.opening import Undecodable

PART = 2**20  # numbers looked up at a time: NumPy makes eight bytes of each


def eight_bits(values: NDArray[np.generic], largest: int = 65535) -> NDArray[np.uint8]:
    """uint8 as it is; uint16, 0..`largest`, to 0..255 and rounded, so that white stays white; bool to 0 and 255.

    Raises:
        Undecodable: for any other type, since nothing says which number is white.
    """
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype.kind == "u" and values.dtype.itemsize == 1:
        return values.astype(np.uint8)
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        level = np.arange(2**16, dtype=np.uint32)
        table = np.minimum((level * 255 + largest // 2) // largest, 255).astype(np.uint8)
        flat = values.reshape(-1)
        parts = [table[flat[start : start + PART]] for start in range(0, len(flat), PART)]
        return np.concatenate([*parts, np.empty(0, np.uint8)]).reshape(values.shape)
    raise Undecodable(
        f"pixels of type {values.dtype} have no fixed range; convert them to uint8 or uint16 (0 to 65535)"
    )
