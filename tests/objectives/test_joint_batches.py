"""Two processes with half of the rows each compute what one does with all of them."""

import contextlib
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from polygrain import distributed
from polygrain.data.loading import ViewBatches
from polygrain.data.scenes import Scenes
from polygrain.losses.sinkhorn import sinkhorn
from polygrain.methods.swav import SwAV
from polygrain.objectives.base import Objective
from polygrain.objectives.cluster import ClusterAssignments
from polygrain.objectives.predict import Bootstrap, Siamese
from polygrain.objectives.prototypical import PrototypicalContrast
from polygrain.objectives.swap import SwappedAssignments
from polygrain.parts.batch_norm import synchronise_batch_norm
from polygrain.parts.encoder import Encoder, EncoderSettings
from polygrain.parts.kmeans import kmeans, spherical_kmeans
from polygrain.schedules import Time
from polygrain.train.embedding import Embedder
from polygrain.views import Encoding
from tests.objectives.encodings import random_encodings
from tests.ranks import run_ranks

IMAGES, BATCH, DIM = 30, 8, 6
NOW = Time(25, 10, 10)
Found = dict[str, Tensor]


def objectives() -> dict[str, Objective]:
    torch.manual_seed(0)
    heads: dict[str, Any] = {"hidden": 8, "out": 5}
    found: dict[str, Objective] = {
        "byol": Bootstrap(DIM, predictor_hidden=7, **heads),
        "simsiam": Siamese(DIM, hidden=8, bottleneck=3),
        "swav": SwappedAssignments(
            DIM, prototypes=7, temperature=0.1, epsilon=0.05, iterations=3, freeze_epochs=0, queue_size=5,
            queue_start_epoch=0, **heads,
        ),
        "deepclusterv2": ClusterAssignments(
            DIM, prototypes=4, clusterings=3, temperature=0.1, iterations=5, crops="large", **heads
        ),
        "pcl": PrototypicalContrast(
            DIM, queue_size=6, temperature=0.2, counts=(4, 9), start_epoch=0, iterations=5, redos=2, repeat=False,
            **heads,
        ),
    }  # fmt: skip
    # InfoNCE computes in float32
    return {name: objective if name == "pcl" else objective.double() for name, objective in found.items()}


def in_precision_of(objective: Objective, encodings: list[Encoding]) -> list[Encoding]:
    dtype = next(objective.parameters()).dtype
    return [e._replace(pooled=e.pooled.to(dtype)) for e in encodings]


def embed(project: Any, *, crops: str | None = None, teacher: bool = False) -> Tensor:
    """As the trainer does: a share of the rows each, gathered afterwards."""
    vectors = torch.randn(2 if crops else 1, IMAGES, DIM, generator=torch.Generator().manual_seed(4)).double()
    if not crops:
        vectors = vectors.float()  # PCL's
    share = IMAGES // distributed.world_size()
    own = vectors[:, distributed.rank() * share : (distributed.rank() + 1) * share]
    return torch.stack([distributed.gather(project(view)) for view in own])


def half(encodings: list[Encoding]) -> list[Encoding]:
    share = BATCH // distributed.world_size()
    own = slice(distributed.rank() * share, (distributed.rank() + 1) * share)
    return [e._replace(pooled=e.pooled[own], view=e.view._replace(image=3 * e.view.image[own])) for e in encodings]


def two_steps(name: str, objective: Objective) -> Found:
    """Loss and gradients of the second step, averaged over ranks as data-parallel training does, and buffers."""
    torch.manual_seed(1)
    if distributed.world_size() > 1:
        synchronise_batch_norm(objective)
    objective.prepare(IMAGES)
    objective.start_epoch(NOW, embed)
    views = 1 if name == "pcl" else 3
    loss = torch.zeros(())
    for _ in range(2):
        student, teacher = random_encodings(views, BATCH, DIM), random_encodings(views, BATCH, DIM)
        objective.zero_grad()
        loss = torch.stack(
            [*objective(*(in_precision_of(objective, half(seen)) for seen in (student, teacher)), NOW).values()]
        ).sum()
        loss.backward()
    gradients = {key: distributed.mean(p.grad) for key, p in objective.named_parameters() if p.grad is not None}
    return {"loss": distributed.mean(loss), **gradients, **dict(objective.named_buffers())}


def uneven_codes() -> Tensor:
    """Ranks with different numbers of rows."""
    scores = F.normalize(torch.randn(11, 7, generator=torch.Generator().manual_seed(5)), dim=1)
    if distributed.world_size() == 1:
        return sinkhorn(scores, 0.05)
    own = scores[:4] if distributed.rank() == 0 else scores[4:]
    codes = F.pad(sinkhorn(own, 0.05), (0, 0, 0, 7 - len(own)))
    gathered = distributed.gather(codes)
    return torch.cat([gathered[:4], gathered[7:]])


def embeddings() -> Found:
    """Of all images by the trainer's embedder; batch norm of the encoder sees whole batches."""
    torch.manual_seed(0)
    arguments = {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 16], "zero_init_last": False}
    encoder = Encoder(EncoderSettings(name="resnet18_64", arguments=arguments))
    method = SwAV(hidden=8, out=4, prototypes=8, large_size=32, small_size=16, small_crops=1).build(encoder).train()
    if distributed.world_size() > 1:
        synchronise_batch_norm(method)
    fabric: Any = SimpleNamespace(
        world_size=distributed.world_size(),
        global_rank=distributed.rank(),
        device=torch.device("cpu"),
        autocast=contextlib.nullcontext,
    )
    views = ViewBatches(Scenes(11, size=40), method.crops, seed=0)
    embedder = Embedder(method=method, views=views, fabric=fabric, batch_size=4, workers=0, timeout=10)
    return {
        "centred": embedder(lambda vectors: vectors, epoch=3),
        "crops": embedder(lambda vectors: vectors, epoch=3, crops="large"),
    }


def everything() -> dict[str, Found]:
    found = {name: two_steps(name, objective) for name, objective in objectives().items()}
    rows = F.normalize(torch.randn(31, 4, generator=torch.Generator().manual_seed(6)).double(), dim=1)
    found["k-means"] = kmeans(rows, 5, iterations=6, redos=3, seed=0)._asdict()
    found["spherical k-means"] = spherical_kmeans(rows, 5, iterations=6, seed=0)._asdict()
    found["codes of ranks with different numbers of rows"] = {"codes": uneven_codes()}
    found["embeddings"] = embeddings()
    return found


def test_two_processes_equal_one() -> None:
    alone = everything()
    for shared in run_ranks(everything):
        for name, wanted in alone.items():
            assert shared[name].keys() == wanted.keys()
            for key, value in wanted.items():
                close = {"rtol": 1e-4, "atol": 1e-6}  # batch norm over processes computes in float32
                torch.testing.assert_close(
                    shared[name][key], value, **close, msg=lambda m, k=key, n=name: f"{n} {k}: {m}"
                )
