"""Clusters of the whole data set, found before each epoch, as labels."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from polygrain.losses.clustering import NONE, cluster_prediction
from polygrain.losses.gauges import spread
from polygrain.objectives.base import DeadValue, Embed, Objective
from polygrain.objectives.contrast import pooled
from polygrain.objectives.swap import same_embeddings, unit_embeddings
from polygrain.parts.bank import Bank
from polygrain.parts.heads import mlp
from polygrain.parts.kmeans import spherical_kmeans
from polygrain.schedules import Time
from polygrain.views import Encoding

ONE_CLUSTER = DeadValue(
    low=0.99,
    high=1.0,
    meaning="one cluster holds nearly all images",
    mend="lower the learning rate, or take more clusters",
)


class ClusterAssignments(Objective):
    """Every view predicts in which cluster its image was found, in several clusterings of all images.

    Before each epoch spherical k-means clusters the embeddings that the previous epoch left in a bank; clustering h
    takes those of assigning view h mod 2, and its centroids are the prototypes until the next (DeepCluster-v2,
    arXiv:2006.09882, app. B, code 06b1b7c). Before the first epoch the bank is filled by a pass over all images.

    Args:
        dim: width of the encoder.
        hidden: width of the projector's hidden layer.
        out: width of embeddings and prototypes.
        prototypes: clusters in each clustering.
        clusterings: their number.
        temperature: of the prediction.
        iterations: of k-means.
        crops: name of the method's request whose first views assign.
        assigning_views: how many.

    Buffers:
        centroids: (H, K, out).
        clusters: (H, images) long.
        largest_cluster: () share of the images in the largest cluster of all.
    """

    granularity = "group"
    centroids: Tensor
    clusters: Tensor
    largest_cluster: Tensor

    def __init__(
        self,
        dim: int,
        *,
        hidden: int,
        out: int,
        prototypes: int,
        clusterings: int,
        temperature: float,
        iterations: int,
        crops: str,
        assigning_views: int = 2,
    ) -> None:
        super().__init__()
        self.projector = mlp((dim, hidden, out), activation="relu", norm="batch")
        self.bank = Bank(assigning_views, out)
        self.register_buffer("centroids", F.normalize(torch.randn(clusterings, prototypes, out), dim=-1))
        self.register_buffer("clusters", torch.full((clusterings, 0), NONE))
        self.register_buffer("largest_cluster", torch.zeros(()))
        self.temperature, self.iterations, self.crops = temperature, iterations, crops
        self.dead_values = {
            "largest_cluster": ONE_CLUSTER,
            "embedding_spread": same_embeddings(),
        }

    def prepare(self, images: int) -> None:
        prototypes = self.centroids.shape[1]
        if prototypes > images:
            raise ValueError(f"{images:,} images cannot form {prototypes:,} clusters; lower the number of prototypes")
        self.bank.allocate(images)
        self.clusters = self.clusters.new_full((len(self.clusters), images), NONE)

    @torch.no_grad()
    def start_epoch(self, time: Time, embed: Embed) -> None:
        if int(self.clusters[0, 0]) == NONE:
            self.bank.rows.copy_(embed(self._embed_one, crops=self.crops)[: len(self.bank.rows)])
        for h, centroids in enumerate(self.centroids):
            rows = self.bank.rows[h % len(self.bank.rows)]
            seed = time.epoch * len(self.centroids) + h
            found = spherical_kmeans(rows, len(centroids), iterations=self.iterations, seed=seed)
            centroids.copy_(found.centroids)
            self.clusters[h] = found.clusters
        counts = [torch.bincount(clusters).max() for clusters in self.clusters]
        self.largest_cluster.copy_(torch.stack(counts).max() / self.clusters.shape[1])

    def _embed_one(self, vectors: Tensor) -> Tensor:
        return unit_embeddings(self.projector, vectors[None])[0]

    def forward(self, student: Sequence[Encoding], teacher: Sequence[Encoding], time: Time) -> dict[str, Tensor]:
        embeddings = unit_embeddings(self.projector, pooled(student))  # (V, B, out)
        image = student[0].view.image
        loss = cluster_prediction(embeddings, self.centroids, self.clusters[:, image], self.temperature)
        self.gauges = {"largest_cluster": self.largest_cluster.clone(), "embedding_spread": spread(embeddings[0])}
        if self.training:
            self.bank.write(image, embeddings[: len(self.bank.rows)].detach())
        return {"cross_entropy": loss}
