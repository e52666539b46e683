from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from polygrain.losses.clustering import NONE
from polygrain.objectives.cluster import ClusterAssignments
from polygrain.schedules import Time
from tests.objectives.encodings import random_encodings

FIRST, SECOND = Time(0, 5, 10), Time(5, 5, 10)


def objective(prototypes: int = 4) -> ClusterAssignments:
    torch.manual_seed(0)
    return ClusterAssignments(
        6, hidden=8, out=5, prototypes=prototypes, clusterings=3, temperature=0.1, iterations=10, crops="large"
    )


class Images:
    """Pooled vectors of two views of all images; counts how often they are asked for."""

    def __init__(self, count: int) -> None:
        self.vectors, self.asked = torch.randn(2, count, 6, generator=torch.Generator().manual_seed(1)), 0

    def __call__(self, project: Any, *, crops: str | None = None, teacher: bool = False) -> Tensor:
        assert crops == "large" and not teacher
        self.asked += 1
        return torch.stack([project(view) for view in self.vectors])


def test_the_bank_is_filled_once_and_clustering_h_takes_view_h_mod_2() -> None:
    clustering, images = objective(), Images(30)
    clustering.prepare(30)
    assert (clustering.clusters == NONE).all()
    clustering.start_epoch(FIRST, images)
    rows = clustering.bank.rows
    torch.testing.assert_close(rows.norm(dim=2), torch.ones(2, 30))
    for h, view in enumerate((0, 1, 0)):
        nearest = (rows[view] @ clustering.centroids[h].T).argmax(1)
        assert torch.equal(clustering.clusters[h], nearest)
    torch.testing.assert_close(clustering.centroids.norm(dim=2), torch.ones(3, 4))
    assert not torch.equal(clustering.clusters[0], clustering.clusters[2])  # other seeds
    clustering.start_epoch(SECOND, images)
    assert images.asked == 1


def test_every_view_predicts_the_cluster_of_its_image_and_large_views_refresh_the_bank() -> None:
    clustering, images = objective(), Images(30)
    clustering.prepare(30)
    clustering.start_epoch(FIRST, images)
    before = clustering.bank.rows.clone()
    chosen = torch.tensor([7, 3, 29, 11])
    student = [e._replace(view=e.view._replace(image=chosen)) for e in random_encodings(3, 4, 6)]
    loss = clustering(student, [], FIRST)["cross_entropy"]
    embeddings = F.normalize(clustering.projector(torch.cat([e.pooled for e in student])), dim=1)  # (V B, out)
    wanted = [
        F.cross_entropy(embeddings @ clustering.centroids[h].T / 0.1, clustering.clusters[h, chosen].repeat(3))
        for h in range(3)
    ]
    torch.testing.assert_close(loss, sum(wanted) / 3)
    torch.testing.assert_close(clustering.bank.rows[:, chosen], embeddings.detach().view(3, 4, 5)[:2])
    rest = [i for i in range(30) if i not in chosen.tolist()]
    assert torch.equal(clustering.bank.rows[:, rest], before[:, rest])
    loss.backward()
    assert all(p.grad is not None for p in clustering.parameters())


def test_in_evaluation_the_bank_stays() -> None:
    clustering = objective().eval()
    clustering.prepare(9)
    clustering(random_encodings(2, 9, 6), [], FIRST)
    assert not clustering.bank.rows.any()


def test_more_clusters_than_images_are_refused() -> None:
    with pytest.raises(ValueError, match="3 images cannot form 4 clusters; lower the number of prototypes"):
        objective().prepare(3)


def test_equal_images_are_told_dead_and_others_are_far_from_it() -> None:
    clustering, images = objective(), Images(30)
    clustering.prepare(30)
    clustering.start_epoch(FIRST, images)
    clustering(random_encodings(2, 9, 6), [], FIRST)
    assert clustering.gauges["largest_cluster"] < 0.7
    assert clustering.gauges["embedding_spread"] > 0.5
    clustering.bank.rows.copy_(clustering.bank.rows[:1, :1].expand(2, 30, 5).clone())
    clustering.start_epoch(SECOND, images)
    alike = [e._replace(pooled=torch.ones(9, 6)) for e in random_encodings(2, 9, 6)]
    clustering(alike, [], SECOND)
    for name, dead in clustering.dead_values.items():
        assert dead.low <= clustering.gauges[name] <= dead.high, name
