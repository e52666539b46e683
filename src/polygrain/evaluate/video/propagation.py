"""Labels that travel through a video by the similarity of patches (DINO, arXiv:2104.14294, official
`eval_video_segmentation.py`, after Jabri et al., arXiv:2006.14613)."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

BLOCK_BYTES = 64 * 2**20  # of affinities at a time


class Propagation(NamedTuple):
    """How labels travel."""

    previous: int = 7  # frames besides the first one
    neighbours: int = 5  # patches of the context, all frames together, whose labels count
    window: int = 12  # patches to each side within which they may lie
    temperature: float = 0.1


def frame_size(frame: Tensor, size: int, multiple: int = 64) -> tuple[int, int]:
    """Height and width to which a frame (3, H, W) is brought: its shorter side to `size`, the longer one down to a
    multiple.

    Raises:
        ValueError: when that multiple is 0.
    """
    height, width = frame.shape[1:]
    longer = int(size * max(height, width) / min(height, width) // multiple * multiple)
    if not longer:
        told = f"a frame of {width}x{height} would have a longer side of 0, down to a multiple of {multiple} px"
        raise ValueError(f"size is {size}, and {told}; use {multiple} or more")
    return (longer, size) if height > width else (size, longer)


def prepared(frame: Tensor, size: tuple[int, int], mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """A frame (3, H, W) uint8 resized bilinearly without antialiasing, as OpenCV does, and normalised: (1, 3, h, w)."""
    small = F.interpolate(frame[None].float(), size=size, mode="bilinear", align_corners=False).add_(0.5).floor_()
    middle, spread = (torch.tensor(values).view(1, -1, 1, 1) for values in (mean, std))
    return (small / 255 - middle) / spread


def first_labels(mask: NDArray[np.uint8], grid: tuple[int, int], void: int = 255) -> Tensor:
    """(C, rows, columns) one-hot labels of patches, by the nearest pixel of the first mask (H, W).

    C is one more than the largest id of the mask itself, also where that object is lost at the size of patches.
    """
    mask = np.where(mask == void, 0, mask).astype(np.uint8)
    small = Image.fromarray(mask).resize((grid[1], grid[0]), Image.Resampling.NEAREST)
    ids = torch.from_numpy(np.array(small)).long()
    return F.one_hot(ids, int(mask.max()) + 1).permute(2, 0, 1).float()


def propagate(
    target: Tensor,
    sources: Tensor,
    labels: Tensor,
    *,
    neighbours: int = 5,
    window: int = 12,
    temperature: float = 0.1,
    block_bytes: int = BLOCK_BYTES,
) -> Tensor:
    """Labels of a frame from those of its context, soft: (C, h, w).

    Each patch takes the labels of the `neighbours` patches most like it among those at most `window` rows and columns
    away, in all frames together, weighted by exp(cosine / temperature); ties with the last of them count too. Rows of
    patches are taken in blocks whose affinities fit into `block_bytes`.

    Args:
        target: (D, h, w) features of unit length.
        sources: (n, D, h, w) of the context.
        labels: (n, C, h, w).
    """
    n, _, height, width = sources.shape
    column = torch.arange(width, device=target.device)
    near = (column[:, None] - column).abs() <= window  # (w target, w source)
    rows = max(1, block_bytes // (4 * n * width * width * min(height, 2 * window + 2)))
    parts = []
    for start in range(0, height, rows):
        end = min(height, start + rows)
        low, high = max(0, start - window), min(height, end + window)
        row, source_row = (torch.arange(a, b, device=target.device) for a, b in ((start, end), (low, high)))
        allowed = (row[:, None] - source_row).abs() <= window  # (r, s)
        inside = allowed[:, None, :, None] & near[:, None]  # (r, w, s, w)
        cosine = torch.einsum("drc,nds->rcns", target[:, start:end], sources[:, :, low:high].flatten(2))
        cosine.masked_fill_(~inside.flatten(2)[:, :, None], -torch.inf)  # (r, w, n, s * w)
        cosine = cosine.flatten(2).flatten(0, 1)  # (r * w, n * s * w)
        most = cosine.topk(min(neighbours, cosine.shape[1]), dim=1).values
        cosine.masked_fill_(cosine < most[:, -1:], -torch.inf)
        affinity = cosine.sub_(most[:, :1]).div_(temperature).exp_()  # the largest is 1, so none can overflow
        affinity /= affinity.sum(dim=1, keepdim=True)
        known = labels[:, :, low:high].flatten(2).transpose(1, 2).flatten(0, 1)  # (n * s * w, C)
        parts.append((affinity @ known).view(end - start, width, -1))
    return torch.cat(parts).permute(2, 0, 1)


def follow(features: Iterable[Tensor], first: Tensor, how: Propagation) -> Iterator[Tensor]:
    """Soft labels (C, h, w) of every frame after the first.

    The context is the first frame and the `previous` ones before each, with the labels as they were found.

    Args:
        features: of each frame, (D, h, w), of any length.
        first: (C, h, w) labels of the first frame.
    """
    frames = iter(features)
    start = (F.normalize(next(frames), dim=0), first)
    recent: deque[tuple[Tensor, Tensor]] = deque(maxlen=how.previous)
    for frame in frames:
        target = F.normalize(frame, dim=0)
        context = [start, *recent]
        labels = propagate(
            target,
            torch.stack([seen for seen, _ in context]),
            torch.stack([known for _, known in context]),
            neighbours=how.neighbours,
            window=how.window,
            temperature=how.temperature,
        )
        recent.append((target, labels))
        yield labels


def to_mask(labels: Tensor, stride: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Object ids (H, W) from soft labels (C, h, w): enlarged bilinearly by the patch, each object's labels stretched
    to [0, 1], the largest taken, brought to the frame's own size by the nearest pixel."""
    large = F.interpolate(labels[None], scale_factor=stride, mode="bilinear", align_corners=False)[0]
    flat = large.flatten(1)
    low, high = flat.amin(dim=1, keepdim=True), flat.amax(dim=1, keepdim=True)
    alike = torch.where(high > 0, torch.inf, 0)  # 0 / 0 in the script, which wins: an object that fills the frame
    stretched = torch.where(high > low, (flat - low) / (high - low), alike)
    ids = stretched.argmax(dim=0).view(large.shape[1:]).byte().cpu().numpy()
    return np.array(Image.fromarray(ids).resize((size[1], size[0]), Image.Resampling.NEAREST))
