import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from polygrain.losses.clustering import NONE, cluster_prediction, concentrations, prototype_nce
from tests.references.make_clustering import CLUSTERS, distances

AUTHORS = json.loads((Path(__file__).parents[1] / "references" / "clustering.json").read_text())["pcl"]


def test_concentrations_are_those_of_pcls_authors() -> None:
    found = concentrations(distances(), torch.tensor(CLUSTERS), 7, 0.2)
    torch.testing.assert_close(found, torch.tensor(AUTHORS["concentrations"]), rtol=1e-5, atol=0)
    assert float(found.mean()) == pytest.approx(0.2)


def test_cluster_prediction_equals_loops_and_leaves_out_images_without_a_cluster() -> None:
    torch.manual_seed(0)
    embeddings = F.normalize(torch.randn(3, 4, 5, dtype=torch.double), dim=2)
    centroids = F.normalize(torch.randn(2, 6, 5, dtype=torch.double), dim=2)
    clusters = torch.tensor([[0, 5, NONE, 2], [1, 1, 3, NONE]])
    losses = []
    for h in range(2):
        for v in range(3):
            for b in range(4):
                if clusters[h, b] != NONE:
                    scores = [math.exp(float(embeddings[v, b] @ c) / 0.1) for c in centroids[h]]
                    losses.append(-math.log(scores[clusters[h, b]] / sum(scores)))
    wanted = sum(losses) / len(losses)
    assert float(cluster_prediction(embeddings, centroids, clusters, 0.1)) == pytest.approx(wanted, rel=1e-10)


def test_before_anything_is_clustered_the_loss_is_zero() -> None:
    none = torch.full((2, 4), NONE)
    assert float(cluster_prediction(torch.randn(3, 4, 5), torch.randn(2, 6, 5), none, 0.1)) == 0


def test_prototype_nce_equals_a_loop_and_gives_no_gradient_to_centroids() -> None:
    torch.manual_seed(0)
    queries = F.normalize(torch.randn(3, 4, dtype=torch.double), dim=1).requires_grad_()
    centroids = F.normalize(torch.randn(9, 4, dtype=torch.double), dim=1).requires_grad_()
    phi = torch.rand(9, dtype=torch.double) + 0.1
    candidates, right = torch.tensor([4, 7, 0, 2]), torch.tensor([1, 0, 1])
    wanted = 0.0
    for q, r in zip(queries, right, strict=True):
        odds = [math.exp(float(q.detach() @ centroids[c].detach() / phi[c])) for c in candidates]
        wanted -= math.log(odds[r] / sum(odds)) / 3
    found = prototype_nce(queries, centroids, phi, candidates, right)
    found.loss.backward()
    assert float(found.loss.detach()) == pytest.approx(wanted, rel=1e-10)
    assert centroids.grad is None and queries.grad is not None and queries.grad.any()
