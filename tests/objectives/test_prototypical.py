import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from polygrain.objectives.prototypical import PrototypicalContrast
from polygrain.schedules import Time
from tests.objectives.encodings import random_encodings
from tests.references.make_clustering import pcl_inputs

AUTHORS = json.loads((Path(__file__).parents[1] / "references" / "clustering.json").read_text())["pcl"]
WARM, LATER = Time(9, 5, 10), Time(10, 5, 10)


def objective(dim: int = 5, **changes: Any) -> PrototypicalContrast:
    torch.manual_seed(0)
    settings: dict[str, Any] = {
        "hidden": 5, "out": 4, "queue_size": 6, "temperature": 0.2, "counts": (8, 8), "start_epoch": 2,
        "iterations": 20, "redos": 3, "repeat": False, **changes,
    }  # fmt: skip
    return PrototypicalContrast(dim, **settings)


def authors_step(repeat: bool) -> tuple[PrototypicalContrast, dict[str, Tensor]]:
    pcl, given = objective(repeat=repeat), pcl_inputs()
    pcl.prepare(8)
    layers = {"0.weight": 0, "0.bias": 1, "2.weight": 2, "2.bias": 3}
    values = [*given["hidden"], *given["last"]]
    with torch.no_grad():
        for side in (pcl.projector.student, pcl.projector.teacher):
            side.load_state_dict({name: values[i] for name, i in layers.items()})
    pcl.queue.rows.copy_(given["queue"])
    pcl.clusters[:, :4] = given["clusters"]
    pcl.centroids.copy_(given["centroids"].flatten(0, 1))
    pcl.concentrations.copy_(given["concentrations"].flatten())
    pcl.largest_cluster.fill_(0.5)
    student, teacher = random_encodings(1, 3, 5), random_encodings(1, 3, 5)
    terms = pcl([student[0]._replace(pooled=given["queries"])], [teacher[0]._replace(pooled=given["keys"])], LATER)
    return pcl, terms


def test_both_terms_and_their_gradient_are_those_of_the_authors_code() -> None:
    pcl, terms = authors_step(repeat=True)
    for name, value in terms.items():
        assert float(value.detach()) == pytest.approx(AUTHORS[name], rel=1e-5), name
    sum(terms.values()).backward()  # type: ignore[union-attr]
    gradient = pcl.projector.student[0].weight.grad
    torch.testing.assert_close(gradient, torch.tensor(AUTHORS["gradient"]), rtol=1e-4, atol=1e-6)
    assert all(parameter.grad is None for parameter in pcl.projector.teacher.parameters())


def test_the_cluster_of_two_images_is_no_wrong_answer_for_either() -> None:
    pcl, terms = authors_step(repeat=False)
    given, own, wanted = pcl_inputs(), torch.arange(3), 0.0
    queries = F.normalize(pcl.projector.student(given["queries"]), dim=1)
    for m in range(2):  # every cluster is a candidate, once
        logits = queries @ given["centroids"][m].T / given["concentrations"][m]
        wanted += float(F.cross_entropy(logits, given["clusters"][m, own]).detach()) / 2
    assert float(terms["proto_nce"].detach()) == pytest.approx(wanted, rel=1e-5)
    assert wanted < AUTHORS["proto_nce"]


def test_before_its_epoch_nothing_is_clustered_and_the_instance_term_stands_alone() -> None:
    pcl = objective(counts=(3, 5))
    pcl.prepare(20)
    calls = []
    vectors = torch.randn(20, 5)

    def embed(project: Any, *, crops: str | None = None, teacher: bool = False) -> Tensor:
        calls.append((crops, teacher))
        return project(vectors)[None]

    student = random_encodings(1, 4, 5)
    pcl.start_epoch(WARM, embed)
    assert not calls and set(pcl(student, student, WARM)) == {"info_nce"}
    pcl.start_epoch(LATER, embed)
    assert calls == [(None, True)] and set(pcl(student, student, LATER)) == {"info_nce", "proto_nce"}
    torch.testing.assert_close(pcl.centroids.norm(dim=1), torch.ones(8))
    assert int(pcl.clusters[0].max()) == 2 and int(pcl.clusters[1].max()) == 4
    for phi in (pcl.concentrations[:3], pcl.concentrations[3:]):
        assert float(phi.mean()) == pytest.approx(0.2, rel=1e-5)
    rows = F.normalize(pcl.projector.teacher(vectors), dim=1)
    own = pcl.centroids[3:][pcl.clusters[1]]
    assert (rows * own).sum(1).mean() > 0.8  # centroids are means of what is near


def test_on_imagenet_there_are_as_many_clusters_as_in_the_paper_and_elsewhere_in_proportion() -> None:
    with torch.device("meta"):
        pcl = objective(counts=None)
        pcl.prepare(1281167)
        assert list(pcl.counts or ()) == [25000, 50000, 100000]
        pcl = objective(counts=None)
        pcl.prepare(5000)
        assert list(pcl.counts or ()) == [98, 195, 390]


def test_more_clusters_than_images_are_refused() -> None:
    with pytest.raises(ValueError, match="7 images cannot form 8 clusters"):
        objective().prepare(7)
