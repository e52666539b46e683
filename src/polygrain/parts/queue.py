"""First in, first out stores of vectors."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from polygrain import distributed

CHUNK = 4096  # rows searched at a time: their similarities stay in cache


class Queue(nn.Module):
    """The newest K vectors of all ranks: negatives (MoCo, arXiv:1911.05722) or memories of neighbours (Mugs).

    It starts with normal noise drawn from the global generator, so ranks that were seeded alike start alike, and
    data-parallel wrappers copy buffers from rank 0 besides. From then on every rank pushes the same rows.

    Args:
        unit: start with unit vectors.
        official: behave as the memories of the official Mugs code (10ab634, src/model.py): the pointer advances
            twice per push unless the push wraps around, which leaves gaps, and rows never written return other
            noise than the noise they are found by.

    Buffers:
        rows: (K, D) what is searched.
        values: (K, D) what `nearest` returns where that is not `rows`, else None. Official memories hold both;
            they differ in rows never written, so a checkpoint of such a memory needs them.
        pointer: () the row that the next push writes first.
        filled: () vectors pushed so far, at most K.
    """

    rows: Tensor
    values: Tensor | None
    pointer: Tensor
    filled: Tensor

    def __init__(self, size: int, dim: int, *, unit: bool = False, official: bool = False) -> None:
        super().__init__()
        rows = torch.randn(size, dim)
        self.register_buffer("rows", F.normalize(rows, dim=1) if unit else rows)
        self.register_buffer("values", torch.randn(size, dim) if official else None)
        self.register_buffer("pointer", torch.zeros((), dtype=torch.long))
        self.register_buffer("filled", torch.zeros((), dtype=torch.long))
        self.official = official

    @torch.no_grad()
    def push(self, vectors: Tensor, keep: Tensor | None = None) -> None:
        """Writes the vectors of all ranks over the oldest rows; of more than K the last K stay.

        Args:
            vectors: (B, D), equally many on every rank.
            keep: (B,) bool, which of them to write; ranks may keep different counts.
        """
        size = self.rows.shape[0]
        vectors = distributed.gather(vectors.to(self.rows.dtype))
        if keep is not None:
            vectors = vectors[distributed.gather(keep)]
        count = vectors.shape[0]
        end = self.pointer + count
        kept = min(count, size)
        index = (end - kept + torch.arange(kept, device=end.device)) % size
        for store in (self.rows, self.values):
            if store is not None:
                store.index_copy_(0, index, vectors[count - kept :])
        if self.official:
            end = torch.where(end <= size, end + count, end)
        self.pointer.copy_(end % size)
        self.filled.copy_((self.filled + count).clamp_max(size))

    @torch.no_grad()
    def nearest(self, query: Tensor, k: int) -> Tensor:
        """The k rows of highest cosine with each query, in falling order: (R, D) to (R, k, D), without gradient."""
        with torch.autocast(query.device.type, enabled=False):
            query = query.to(self.rows.dtype)
            best = query.new_empty(query.shape[0], 0)
            index = best.long()
            for start in range(0, len(self.rows), CHUNK):
                chunk = self.rows[start : start + CHUNK]
                # The query's own length does not change its order of rows.
                cosine = (query @ chunk.T).div_(torch.linalg.vector_norm(chunk, dim=1).clamp_min_(1e-12))  # (R, chunk)
                high, where = cosine.topk(min(k, chunk.shape[0]), dim=1)
                best, order = torch.cat([best, high], 1).topk(min(k, best.shape[1] + high.shape[1]), dim=1)
                index = torch.cat([index, where + start], 1).gather(1, order)
        return (self.rows if self.values is None else self.values)[index]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        values = state_dict.get(f"{prefix}values")
        self.values = None if values is None else torch.empty_like(self.rows)
        super()._load_from_state_dict(state_dict, prefix, *args)
