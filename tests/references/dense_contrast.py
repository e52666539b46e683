"""Contrastive losses written out anchor by anchor, from the formulas of the papers; slow and plain."""

import math

import torch
from torch import Tensor


def dense_nt_xent(x: Tensor, y: Tensor, temperature: float) -> float:
    """SimCLR, eq. 1 and algorithm 1: 2N vectors in one list, row 2k and row 2k + 1 are partners."""
    rows = [row for pair in zip(x.double(), y.double(), strict=True) for row in pair]
    losses = []
    for i, anchor in enumerate(rows):
        partner = i + 1 if i % 2 == 0 else i - 1
        terms = [math.exp(float(anchor @ other) / temperature) for k, other in enumerate(rows) if k != i]
        losses.append(-math.log(math.exp(float(anchor @ rows[partner]) / temperature) / sum(terms)))
    return sum(losses) / len(losses)


def dense_slots(x: Tensor, y: Tensor, temperature: float, *, across: bool) -> float:
    """The same of (N, M, D) slots: negatives are other images' vectors of the same slot, or of all slots."""
    sides, losses = (x.double(), y.double()), []
    images, slots, _ = x.shape
    for side in (0, 1):
        for i in range(images):
            for m in range(slots):
                anchor = sides[side][i, m]
                positive = math.exp(float(anchor @ sides[1 - side][i, m]) / temperature)
                negatives = sum(
                    math.exp(float(anchor @ other[j, k]) / temperature)
                    for other in sides
                    for j in range(images)
                    if j != i
                    for k in (range(slots) if across else [m])
                )
                losses.append(-math.log(positive / (positive + negatives)))
    return sum(losses) / len(losses)


def dense_mocov3(predictions: list[Tensor], keys: list[Tensor], temperature: float) -> float:
    """MoCo-v3, algorithm 1: ctr(q1, k2) + ctr(q2, k1), with ctr = 2 tau cross-entropy against the diagonal."""

    def ctr(q: Tensor, k: Tensor) -> float:
        logits = q.double() @ k.double().T / temperature
        return float(2 * temperature * (torch.logsumexp(logits, 1) - logits.diagonal()).mean())

    return ctr(predictions[0], keys[1]) + ctr(predictions[1], keys[0])


def dense_queue(queries: Tensor, keys: Tensor, queue: Tensor, temperature: float) -> float:
    """MoCo, algorithm 1: the key is class 0 among 1 + K."""
    logits = torch.cat([(queries * keys).sum(1, keepdim=True), queries @ queue.T], 1).double() / temperature
    return float((torch.logsumexp(logits, 1) - logits[:, 0]).mean())


def dense_barlow(x: Tensor, y: Tensor, off_diagonal: float) -> float:
    """Barlow Twins, eq. 1 and 2, element by element."""
    x, y = x.double(), y.double()
    total = 0.0
    for i in range(x.shape[1]):
        for j in range(x.shape[1]):
            a, b = x[:, i] - x[:, i].mean(), y[:, j] - y[:, j].mean()
            correlation = float((a * b).mean() / ((a * a).mean() + 1e-5).sqrt() / ((b * b).mean() + 1e-5).sqrt())
            total += (1 - correlation) ** 2 if i == j else off_diagonal * correlation**2
    return total
