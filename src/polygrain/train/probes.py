"""The online probe: weighted kNN on frozen features, where the images have labels."""

import numpy as np
import torch
from torch import Tensor

from polygrain.data.centred import centred_batches
from polygrain.data.photometric import Normalisation
from polygrain.data.sources import Images
from polygrain.losses.neighbours import knn_predict
from polygrain.parts.encoder import Encoder

BANK, QUERIES = 4000, 1000  # images, at most


class Probe:
    """kNN top-1 of a fixed, held-apart subset of the labelled training images, against another one.

    The numbers say how a run goes; `polygrain evaluate` gives those to report.
    """

    def __init__(self, images: Images, size: int, normalisation: Normalisation, every: int) -> None:
        labels = images.labels()
        assert labels is not None
        labelled = np.random.default_rng(0).permutation(np.flatnonzero(labels >= 0))
        queries = min(QUERIES, len(labelled) // 5)
        self.every = every  # steps
        self._queries, self._bank = labelled[:queries], labelled[queries : queries + BANK]
        self._labels = torch.from_numpy(labels)
        self._images, self._size, self._normalisation = images, size, normalisation

    @torch.no_grad()
    def __call__(self, encoder: Encoder) -> dict[str, float]:
        training = encoder.training
        encoder.eval()
        bank, queries = self._features(encoder, self._bank), self._features(encoder, self._queries)
        encoder.train(training)
        k = min(20, len(bank))
        labels = self._labels[self._bank].to(bank.device)
        ranked = knn_predict(queries, bank, labels, classes=int(self._labels.max()) + 1, ks=(k,), top=1)
        correct = ranked[0, :, 0].cpu() == self._labels[self._queries]
        return {f"probe/knn{k}_top1": correct.double().mean().item()}

    def _features(self, encoder: Encoder, positions: np.ndarray) -> Tensor:
        device = next(encoder.parameters()).device
        batches = centred_batches(self._images, positions, self._size, self._normalisation)
        return torch.cat([encoder.features(batch.to(device)).pooled.float() for batch in batches])
