"""NNCLR: with a little help from my friends, nearest-neighbour contrastive learning (arXiv:2104.14548)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from polygrain.distributed import gather_with_gradient
from polygrain.losses.vicreg import full_precision
from polygrain.methods.base import Method
from polygrain.methods.optimization import Optimization
from polygrain.objectives.base import Objective
from polygrain.objectives.in_batch import EMBEDDINGS_ALIKE, of_this_rank, pivot_pairs
from polygrain.objectives.vicreg import spread_of_unit_vectors
from polygrain.parts.encoder import Encoder
from polygrain.parts.heads import mlp
from polygrain.parts.queue import Queue
from polygrain.ranges import COUNT, NOT_NEGATIVE, NUMBER, PART, PIXELS, POSITIVE, check_ranges, check_scale
from polygrain.schedules import RunLength, Time, constant, warmup_cosine_by_images
from polygrain.views import Crops, Encoding


class NeighbourContrast(Objective):
    """The nearest past embedding of one view finds the prediction of the other view in the batch (alg. 1).

    Args:
        out: width of the embeddings.
        queue_size: past embeddings among which the neighbours are, those of the first view.
    """

    granularity = "local group"
    least_images = 2  # one image has no negatives

    def __init__(
        self, dim: int, *, hidden: int, predictor_hidden: int, out: int, queue_size: int, temperature: float
    ) -> None:
        super().__init__()
        layers = mlp((dim, hidden, hidden, out), activation="relu", norm="batch")
        self.projector = nn.Sequential(layers, nn.BatchNorm1d(out))
        self.predictor = mlp((out, predictor_hidden, out), activation="relu", norm="batch")
        self.queue = Queue(queue_size, out, unit=True)
        self.temperature = temperature
        self.dead_values = {"embedding_std": EMBEDDINGS_ALIKE}

    def forward(self, student: Sequence[Encoding], teacher: Sequence[Encoding], time: Time) -> dict[str, Tensor]:
        embeddings = [self.projector(encoding.pooled) for encoding in student]  # each (n, D)
        own = [full_precision(self.predictor(embedding)) for embedding in embeddings]
        predictions = [gather_with_gradient(F.normalize(prediction, dim=1)) for prediction in own]  # (N, D)
        units = [F.normalize(full_precision(embedding.detach()), dim=1) for embedding in embeddings]
        neighbours = [self.queue.nearest(unit, 1)[:, 0] for unit in units]
        labels = torch.arange(len(predictions[0]), device=predictions[0].device)[of_this_rank(own[0])]
        loss, right = predictions[0].new_zeros(()), predictions[0].new_zeros(())
        for (i, j), weight in pivot_pairs(len(student)).items():
            for anchor, other in ((i, j), (j, i)):
                logits = neighbours[anchor] @ predictions[other].T / self.temperature  # (n, N)
                loss = loss + weight / 2 * F.cross_entropy(logits, labels)
                right = right + weight / 2 * (logits.argmax(1) == labels).float().mean()
        self.gauges = {"accuracy": right, "embedding_std": spread_of_unit_vectors(units[0])}
        if self.training:
            self.queue.push(units[0])
        return {"info_nce": loss}

    def refuses(self, student: Sequence[Crops], teacher: Sequence[Crops]) -> str | None:
        views = sum(crops.count for crops in student)
        return None if views > 1 else f"it compares at least two views of an image; this method's student sees {views}"


@dataclass(frozen=True, kw_only=True)
class NNCLR:
    """One network, two views of each image; the positive of one is not the other but its nearest earlier image.

    Args:
        large_size: side of both crops, in pixels.
        large_scale: their share of the image area.
        blur_scale: factor on the sigma of blurs, which are given for crops of 224 pixels.
        hidden: width of the projector's two hidden layers.
        predictor_hidden: width of the predictor's hidden layer.
        out: width of the embeddings.
        queue_size: embeddings of earlier images, among which neighbours are sought.
        temperature: of the softmax.
        optimizer: LARS or AdamW. Sizes and rates are marked in docs/methods/nnclr.md: some are recalled.
        base_lr: learning rate per 256 images; by default 0.3 with LARS, 5e-4 with AdamW.
        warmup_epochs: in which the learning rate rises from 0.
        weight_decay: of weights, not of biases and norms; by default 1e-6 with LARS, 0.05 with AdamW.
    """

    large_size: int = 224
    large_scale: tuple[float, float] = (0.08, 1.0)
    blur_scale: float = 1.0
    hidden: int = 2048
    predictor_hidden: int = 4096
    out: int = 256
    queue_size: int = 98304
    temperature: float = 0.1
    optimizer: Literal["lars", "adamw"] = "lars"
    base_lr: float | None = None
    warmup_epochs: float = 10
    weight_decay: float | None = None

    def __post_init__(self) -> None:
        kinds = {
            PIXELS: "large_size",
            COUNT: "hidden predictor_hidden out queue_size",
            NUMBER: "warmup_epochs",
            PART: "large_scale",
            POSITIVE: "temperature base_lr",
            NOT_NEGATIVE: "blur_scale weight_decay",
        }
        check_ranges(self, kinds)
        check_scale("large_scale", self.large_scale)

    def build(self, encoder: Encoder) -> Method:
        crops = Crops(
            name="large",
            count=2,
            size=self.large_size,
            scale=self.large_scale,
            recipes=("simclr",),
            blur_scale=self.blur_scale,
        )
        sizes = {name: getattr(self, name) for name in ("hidden", "predictor_hidden", "out", "queue_size")}
        objective = NeighbourContrast(encoder.dim, **sizes, temperature=self.temperature)
        apart = encoder.has_batch_norm  # heads run one view at a time, and so does whatever batch norm can tell
        return Method(encoder, {"neighbour": objective}, weights={"neighbour": 1.0}, student_sees=(crops,), apart=apart)

    def optimization(self, length: RunLength) -> Optimization:
        base_lr, weight_decay = {"lars": (0.3, 1e-6), "adamw": (5e-4, 0.05)}[self.optimizer]
        peak = (base_lr if self.base_lr is None else self.base_lr) * length.batch_size / 256
        return Optimization(
            optimizer=self.optimizer,
            lr=warmup_cosine_by_images(peak, 0.0, self.warmup_epochs, length),
            weight_decay=constant(weight_decay if self.weight_decay is None else self.weight_decay),
        )
