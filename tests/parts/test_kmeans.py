import itertools
import math

import numpy as np
import torch
import torch.nn.functional as F

from polygrain.parts import kmeans as module
from polygrain.parts.kmeans import kmeans, spherical_kmeans


def cloud(count: int, dim: int, seed: int = 0) -> torch.Tensor:
    return F.normalize(
        torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.double), dim=1
    )


def test_spherical_kmeans_takes_the_steps_of_a_loop() -> None:
    rows, count = cloud(40, 3), 6
    found = spherical_kmeans(rows, count, iterations=4, seed=5)
    start = torch.randperm(40, generator=torch.Generator().manual_seed(5))[:count]
    centroids = rows[start].numpy().copy()
    points = rows.numpy()
    for _ in range(4):
        nearest = [int(np.argmax([p @ c for c in centroids])) for p in points]
        for k in range(count):
            own = [p for p, n in zip(points, nearest, strict=True) if n == k]
            if own:
                total = sum(own)
                centroids[k] = total / math.sqrt(total @ total)
    np.testing.assert_allclose(found.centroids.numpy(), centroids, atol=1e-12)
    assert found.clusters.tolist() == [int(np.argmax([p @ c for c in centroids])) for p in points]


def test_the_agreement_with_centroids_never_falls() -> None:
    rows = cloud(200, 8)
    agreements = []
    for iterations in range(8):
        found = spherical_kmeans(rows, 12, iterations=iterations, seed=1)
        agreements.append(float((rows * found.centroids[found.clusters]).sum()))
        torch.testing.assert_close(found.centroids.norm(dim=1), torch.ones(12, dtype=torch.double))
    assert all(later >= earlier - 1e-9 for earlier, later in itertools.pairwise(agreements))


def test_an_empty_cluster_keeps_its_centroid() -> None:
    rows = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    found = spherical_kmeans(rows, 3, iterations=5, seed=0)
    assert sorted(found.centroids.tolist()) == [[0.0, 1.0], [1.0, 0.0], [1.0, 0.0]]
    assert len(set(found.clusters.tolist())) == 2  # a tie goes to the first


def test_kmeans_finds_clusters_that_are_there_and_the_distances_to_their_means() -> None:
    generator = torch.Generator().manual_seed(0)
    centres = torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0], [9.0, 9.0]])
    members = torch.arange(80) % 4
    rows = centres[members] + 0.3 * torch.randn(80, 2, generator=generator)
    found = kmeans(rows, 4, iterations=20, redos=5, seed=0)
    for k in range(4):
        assert len(set(found.clusters[members == k].tolist())) == 1
        mean = rows[members == k].mean(0)
        cluster = int(found.clusters[members == k][0])
        torch.testing.assert_close(found.centroids[cluster], mean)
        torch.testing.assert_close(found.distances[members == k], (rows[members == k] - mean).norm(dim=1))


def test_of_several_starts_the_best_is_kept() -> None:
    rows = cloud(120, 4)
    alone = min(
        float(kmeans(rows, 10, iterations=3, redos=redos, seed=2).distances.square().sum()) for redos in (1, 2, 3)
    )
    assert float(kmeans(rows, 10, iterations=3, redos=3, seed=2).distances.square().sum()) == alone


def test_an_empty_cluster_takes_half_of_the_largest() -> None:
    centroids = torch.tensor([[2.0, 4.0], [0.0, 0.0], [8.0, 8.0]])
    split = module._split(centroids, torch.tensor([9, 0, 3]))
    step = 1 / 1024
    wanted = [[2 * (1 - step), 4 * (1 + step)], [2 * (1 + step), 4 * (1 - step)], [8.0, 8.0]]
    torch.testing.assert_close(split, torch.tensor(wanted))
