"""The best of several classifiers on held-out training images, and beside it the best on the test images."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from polygrain.evaluate.metrics import Scores, classification_scores


def held_out_rows(count: int, share: float, seed: int, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Rows (long) of `count` training images that choose, and those that train.

    Raises:
        ValueError: when either would be none.
    """
    chooses = round(share * count)
    if not 0 < chooses < count:
        raise ValueError(
            f"holding out {share:.0%} of {count} training images leaves {chooses} to choose with and "
            f"{count - chooses} to train; both must be 1 or more"
        )
    order = torch.from_numpy(np.random.default_rng(seed).permutation(count)).to(device)
    return order[:chooses], order[chooses:]


class Choosing:
    """Keeps the candidate that is best on held-out images, looking once or after every epoch.

    Of equals the first is kept, and none whose answers are no numbers.

    Args:
        names: of the candidates, in order.
        labels: (n,) of the test images.
    """

    ranked: Tensor  # (n, R) classes of the test images by the chosen candidate, most likely first

    def __init__(self, names: Sequence[str], labels: Tensor) -> None:
        self.names, self.labels = list(names), labels
        self.name, self.epoch, self.looks = "", 0, 0
        self.held: list[float | None] = []  # top-1 of all candidates on held-out images, when the chosen one was found
        self.tested: list[float | None] = []  # on the test images
        self.diverged: list[str] = []
        self._best, self._oracle = -1.0, -1.0

    def look(self, held: Sequence[float | None], tested: Sequence[float | None], rank: Callable[[int], Tensor]) -> None:
        """Top-1 of every candidate, None of one that has diverged.

        Args:
            rank: the ranked classes of the test images (n, R) by one of the candidates.

        Raises:
            ValueError: when all have diverged, and none was chosen before.
        """
        self.looks += 1
        able = [-1.0 if one is None or other is None else one for one, other in zip(held, tested, strict=True)]
        self.diverged = [name for name, share in zip(self.names, able, strict=True) if share < 0]
        if self.diverged == self.names and not self.name:
            raise ValueError(f"all classifiers diverged ({', '.join(self.names)}); give smaller learning_rates")
        self._oracle = max(self._oracle, *(share for share in tested if share is not None))
        if max(able) > self._best:
            place = int(np.argmax(able))
            self._best, self.name, self.epoch = able[place], self.names[place], self.looks
            self.held, self.tested, self.ranked = list(held), list(tested), rank(place)

    def scores(self, seed: int) -> Scores:
        """Of the chosen one; "top1_oracle" is the best that any has done on the test images."""
        scores = classification_scores(self.ranked, self.labels, seed=seed)
        return scores | {"top1_held_out": self._best, "top1_oracle": self._oracle}

    def notes(self) -> tuple[str, ...]:
        """On candidates that cannot be chosen."""
        if not self.diverged:
            return ()
        which = f"{len(self.diverged)} of {len(self.names)} classifiers diverged"
        return (f"{which}, and none is chosen from where its answers are no numbers: {', '.join(self.diverged)}",)

    def details(self) -> dict[str, Any]:
        found = {
            "chosen": self.name,
            "held_out_top1": dict(zip(self.names, self.held, strict=True)),
            "test_top1": dict(zip(self.names, self.tested, strict=True)),
        }
        return found | ({"chosen_epoch": self.epoch, "epochs": self.looks} if self.looks > 1 else {})


def ranked_rows(logits: Tensor) -> Tensor:
    """Classes (n, R) by logits (n, C), the largest first, of equals the lowest; five at most."""
    return logits.argsort(dim=1, descending=True, stable=True)[:, :5]
