"""What the log says of the features, without labels."""

from collections.abc import Sequence

import torch
from torch import Tensor

from polygrain.losses.gauges import mean_cosine, rankme, spread
from polygrain.views import Encoding

ROWS = 512  # enough to see a collapse, and cheap beside a step


@torch.no_grad()
def feature_gauges(seen: Sequence[Encoding]) -> dict[str, Tensor]:
    """Spread, effective rank and mean cosine of the pooled vectors and of patch vectors of the newest batch.

    Of its first view: two views of an encoder that gives a constant for each would look as if images differed.
    """
    pooled, patches = seen[0].pooled, seen[0].patches.flatten(0, 1)
    gauges = {}
    for name, vectors in (("pooled", pooled), ("patches", patches)):
        rows = vectors[:: max(1, len(vectors) // ROWS)][:ROWS]
        if len(rows) > 1:
            gauges[f"features/{name}_spread"] = spread(rows)
            gauges[f"features/{name}_effective_rank"] = rankme(rows)
            gauges[f"features/{name}_mean_cosine"] = mean_cosine(rows)
    return gauges
