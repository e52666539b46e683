"""Contrast within a batch: an image's other view against the views of the other images of all ranks."""

import torch
import torch.nn.functional as F
from torch import Tensor

from polygrain.losses.contrastive import Contrast
from polygrain.losses.vicreg import full_precision

EVERY = slice(None)


def nt_xent(x: Tensor, y: Tensor, temperature: float, own: slice = EVERY, *, across_slots: bool = False) -> Contrast:
    """-log [exp(a.p/T) / (exp(a.p/T) + sum_n exp(a.n/T))], averaged over the anchors a, which are x and y.

    The positive p of an anchor is its partner in the other view; the negatives n are both views of every other image
    (SimCLR, arXiv:2002.05709, eq. 1). An anchor's own image gives no negatives.

    Args:
        x, y: (N, M, D) unit vectors of the whole batch; slot m of x and slot m of y are partners.
        own: the images that are anchors: those of this rank. The mean over ranks is the loss of the whole batch.
        across_slots: negatives come from all slots of other images, at M times the cost, instead of the same slot.
    """
    with torch.autocast(x.device.type, enabled=False):
        keys = full_precision(torch.stack([x, y]))  # (2, N, M, D)
        anchors = keys[:, own]  # (2, n, M, D)
        positive = (anchors * anchors.flip(0)).sum(3) / temperature  # (2, n, M)
        if across_slots:
            logits = torch.einsum("aimd,bjkd->aimbjk", anchors, keys) / temperature  # (2, n, M, 2, N, M)
        else:
            logits = torch.einsum("aimd,bjmd->aimbj", anchors, keys)[..., None] / temperature  # (2, n, M, 2, N, 1)
        image = torch.arange(keys.shape[1], device=x.device)
        same = image[own, None] == image  # (n, N)
        logits = logits.masked_fill(same[:, None, None, :, None], -torch.inf).flatten(3)
        loss = torch.logaddexp(positive, logits.logsumexp(3)) - positive
        right = (positive > logits.amax(3)).float()
        return Contrast(loss.mean(), right.mean().detach())


def predicted_keys(predictions: Tensor, keys: Tensor, weights: Tensor, temperature: float, own: slice) -> Contrast:
    """2 T times the cross-entropy of p.k/T over the keys k of the whole batch, weighted over pairs of views.

    The factor keeps the size of the gradient when T changes (MoCo-v3, arXiv:2104.02057, alg. 1).

    Args:
        predictions: (V, n, D) unit vectors of the student's views of this rank's images.
        keys: (T, N, D) unit vectors of the teacher's views of the whole batch; no gradient reaches them.
        weights: (T, V) of each pair.
        own: where this rank's images stand among the N.
    """
    with torch.autocast(predictions.device.type, enabled=False):
        predictions, keys = full_precision(predictions), full_precision(keys.detach())
        logits = torch.einsum("vid,tjd->tvij", predictions, keys) / temperature
        label = torch.arange(keys.shape[1], device=keys.device)[own]  # (n,)
        each = F.cross_entropy(logits.flatten(0, 2), label.repeat(len(keys) * len(predictions)), reduction="none")
        loss = each.view(logits.shape[:3]).mean(2)  # (T, V)
        right = (logits.argmax(3) == label).float().mean(2)
        weights = weights.to(loss)
        return Contrast(2 * temperature * (weights * loss).sum(), (weights * right).sum().detach())
