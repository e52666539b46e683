"""Instances against a queue, and clusters of the whole data set against each other, on the same vectors."""

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from polygrain import distributed
from polygrain.losses.clustering import NONE, concentrations, prototype_nce
from polygrain.losses.contrastive import info_nce
from polygrain.losses.gauges import spread
from polygrain.objectives.base import Embed, Objective
from polygrain.objectives.cluster import ONE_CLUSTER
from polygrain.objectives.contrast import ALIKE
from polygrain.parts.heads import mlp
from polygrain.parts.kmeans import kmeans
from polygrain.parts.queue import Queue
from polygrain.parts.teacher import StudentTeacher
from polygrain.schedules import Time
from polygrain.views import Crops, Encoding

IMAGENET_IMAGES, IMAGENET_CLUSTERS = 1281167, (25000, 50000, 100000)


class PrototypicalContrast(Objective):
    """InfoNCE of the student's view with the teacher's, and from `start_epoch` on ProtoNCE with centroids of clusters.

    Before each epoch k-means clusters what the teacher makes of the centred crop of every image, into several numbers
    of clusters. A cluster's concentration is its temperature. The clusters to choose from are those of the batch over
    all ranks and as many others as the queue is long, drawn by step; the authors' code takes those of one device
    (PCL, arXiv:2005.04966, eq. 11).

    Args:
        dim: width of the encoder.
        hidden: width of the projector's hidden layer.
        out: width of keys, queries and centroids.
        queue_size: negatives of the InfoNCE, and most clusters of other images in the ProtoNCE.
        counts: numbers of clusters; None for 25,000, 50,000 and 100,000 on ImageNet, in proportion to the images.
        start_epoch: before which nothing is clustered.
        iterations: of k-means.
        redos: starts of k-means, of which the best counts.
        repeat: let a cluster of two images of the batch be a candidate twice, once as the wrong one for either.

    Buffers:
        clusters: (M, images) long.
        centroids, concentrations: (K1 + ... + KM, out) and (K1 + ... + KM,), one clustering after the other.
        largest_cluster: () share of the images in the largest cluster of all.
    """

    granularity = "instance, group"
    clusters: Tensor
    centroids: Tensor
    concentrations: Tensor
    largest_cluster: Tensor

    def __init__(
        self,
        dim: int,
        *,
        hidden: int,
        out: int,
        queue_size: int,
        temperature: float,
        counts: Sequence[int] | None,
        start_epoch: int,
        iterations: int,
        redos: int,
        repeat: bool,
    ) -> None:
        super().__init__()
        self.projector = StudentTeacher(mlp((dim, hidden, out), activation="relu"))
        self.queue = Queue(queue_size, out, unit=True)
        self.temperature, self.repeat = temperature, repeat
        self.counts = counts
        self.first_epoch, self.iterations, self.redos = start_epoch, iterations, redos
        self.register_buffer("clusters", torch.full((0, 0), NONE))
        self.register_buffer("centroids", torch.zeros(0, out))
        self.register_buffer("concentrations", torch.zeros(0))
        self.register_buffer("largest_cluster", torch.zeros(()))
        self.dead_values = {"key_spread": ALIKE, "largest_cluster": ONE_CLUSTER}

    def prepare(self, images: int) -> None:
        if self.counts is None:
            self.counts = [max(2, round(count * images / IMAGENET_IMAGES)) for count in IMAGENET_CLUSTERS]
        if max(self.counts) > images:
            raise ValueError(f"{images:,} images cannot form {max(self.counts):,} clusters; lower the numbers")
        self.clusters = self.clusters.new_full((len(self.counts), images), NONE)
        self.centroids = self.centroids.new_zeros(sum(self.counts), self.centroids.shape[1])
        self.concentrations = self.concentrations.new_zeros(sum(self.counts))

    @torch.no_grad()
    def start_epoch(self, time: Time, embed: Embed) -> None:
        if time.epoch < self.first_epoch:
            return
        assert self.counts is not None
        (rows,) = embed(lambda vectors: F.normalize(self.projector.teacher(vectors).float(), dim=1), teacher=True)
        largest = []
        for i, (centroids, phi) in enumerate(self._clusterings()):
            count = len(centroids)
            found = kmeans(rows, count, iterations=self.iterations, redos=self.redos, seed=i)
            centroids.copy_(F.normalize(found.centroids, dim=1))
            phi.copy_(concentrations(found.distances, found.clusters, count, self.temperature))
            self.clusters[i] = found.clusters
            largest.append(torch.bincount(found.clusters).max())
        self.largest_cluster.copy_(torch.stack(largest).max() / len(rows))

    def _clusterings(self) -> list[tuple[Tensor, Tensor]]:
        """Centroids and concentrations of each, as parts of the buffers."""
        ends = list(itertools.accumulate(self.counts or (), initial=0))
        places = [slice(start, end) for start, end in itertools.pairwise(ends)]
        return [(self.centroids[place], self.concentrations[place]) for place in places]

    def forward(self, student: Sequence[Encoding], teacher: Sequence[Encoding], time: Time) -> dict[str, Tensor]:
        queries = F.normalize(_precise(self.projector.student(student[0].pooled)), dim=1)
        with torch.no_grad():
            keys = F.normalize(_precise(self.projector.teacher(teacher[0].pooled)), dim=1)
        one = queries.new_ones(1, 1)
        loss, accuracy = info_nce(queries[None], keys[None], self.queue.rows, one, self.temperature)
        terms = {"info_nce": loss}
        self.gauges = {"accuracy": accuracy, "key_spread": spread(keys)}
        if float(self.largest_cluster) > 0:  # clusters have been found
            terms["proto_nce"], self.gauges["prototype_accuracy"] = self._proto_nce(
                queries, student[0].view.image, time
            )
            self.gauges["largest_cluster"] = self.largest_cluster.clone()
        if self.training:
            self.queue.push(keys)
        return terms

    def _proto_nce(self, queries: Tensor, image: Tensor, time: Time) -> tuple[Tensor, Tensor]:
        found = []
        for i, (centroids, phi) in enumerate(self._clusterings()):
            own = self.clusters[i, image]
            positives = distributed.gather(own)
            right = distributed.rank() * len(own) + torch.arange(len(own), device=own.device)
            if not self.repeat:
                positives, places = torch.unique(positives, return_inverse=True)
                right = places[right]
            others = torch.ones(len(centroids), dtype=torch.bool, device=own.device)
            others[positives] = False
            generator = torch.Generator().manual_seed(time.step * len(self.clusters) + i)
            order = torch.randperm(len(centroids), generator=generator).to(own.device)
            negatives = order[others[order]][: len(self.queue.rows)]
            found.append(prototype_nce(queries, centroids, phi, torch.cat([positives, negatives]), right))
        losses, accuracies = zip(*found, strict=True)
        return torch.stack(losses).mean(), torch.stack(accuracies).mean()

    def refuses(self, student: Sequence[Crops], teacher: Sequence[Crops]) -> str | None:
        return None if teacher else "it takes its keys from a teacher; this method has none"


def _precise(vectors: Tensor) -> Tensor:
    return vectors.to(torch.promote_types(vectors.dtype, torch.float32))
