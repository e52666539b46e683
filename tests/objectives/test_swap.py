import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from polygrain.objectives.swap import SwappedAssignments, score_spread
from polygrain.schedules import Time
from tests.objectives.encodings import random_encodings
from tests.references.make_clustering import wave

LIGHTLY = json.loads((Path(__file__).parents[1] / "references" / "clustering.json").read_text())["lightly"]
FIRST, LATER = Time(0, 10, 10), Time(30, 10, 10)


def objective(**changes: Any) -> SwappedAssignments:
    torch.manual_seed(0)
    settings = {"hidden": 8, "out": 5, "prototypes": 7, "temperature": 0.1, "epsilon": 0.05, "iterations": 3}
    queue = {"freeze_epochs": 1, "queue_size": 0, "queue_start_epoch": 2}
    return SwappedAssignments(6, **{**settings, **queue, **changes})


def dense(scores: Tensor, codes: list[Tensor]) -> Tensor:
    """One term after the other, in the authors' order of summing."""
    loss = torch.zeros(())
    for a, code in enumerate(codes):
        terms = [-(code * (s / 0.1).log_softmax(1)).sum(1).mean() for v, s in enumerate(scores) if v != a]
        loss = loss + sum(terms) / len(terms) / len(codes)
    return loss


def dense_codes(scores: Tensor) -> Tensor:
    q = (scores.double() / 0.05).exp().T  # (K, B)
    q = q / q.sum()
    for _ in range(3):
        q = q / q.sum(1, keepdim=True) / q.shape[0]
        q = q / q.sum(0, keepdim=True) / q.shape[1]
    return (q * q.shape[1]).T.float()


def test_the_loss_is_that_of_one_term_after_the_other() -> None:
    swav = objective()
    student = random_encodings(4, 9, 6)
    loss = swav(student, [], FIRST)["cross_entropy"]
    rows = torch.cat([view.pooled for view in student])  # one pass through the projector, as the authors do
    embeddings = F.normalize(swav.projector(rows), dim=1).view(4, 9, 5)
    scores = embeddings @ swav.prototypes.weight.T
    codes = [dense_codes(scores[a].detach()) for a in range(2)]
    torch.testing.assert_close(loss, dense(scores, codes), rtol=1e-4, atol=1e-5)


def test_prototypes_have_length_one_in_every_step_though_they_are_frozen_at_first() -> None:
    swav = objective()
    with torch.no_grad():
        swav.prototypes.weight.mul_(3)
    direction = F.normalize(swav.prototypes.weight.detach(), dim=1)
    for time, frozen in ((FIRST, True), (LATER, False)):
        swav.zero_grad()
        swav(random_encodings(2, 9, 6), [], time)["cross_entropy"].backward()
        swav.after_backward(time)
        torch.testing.assert_close(swav.prototypes.weight.detach(), direction)
        assert (swav.prototypes.weight.grad is None) == frozen


def test_in_evaluation_nothing_is_changed() -> None:
    swav = objective(queue_size=6, queue_start_epoch=0).eval()
    before = {name: value.clone() for name, value in swav.state_dict().items()}
    swav(random_encodings(2, 9, 6), [], LATER)
    assert all(torch.equal(value, before[name]) for name, value in swav.state_dict().items())


def test_queues_are_filled_from_their_epoch_on_and_used_once_they_are_full() -> None:
    swav = objective(queue_size=12)
    used: list[int] = []
    swav._codes = lambda scores, view, take=swav._codes: (
        used.append(int(swav.queues[view].filled)) or take(scores, view)
    )  # type: ignore[method-assign]
    for step in (0, 19, 20, 21, 22):
        swav(random_encodings(3, 5, 6), [], Time(step, 10, 10))
    assert used[::2] == used[1::2] == [0, 0, 0, 5, 10]
    assert int(swav.queues[0].filled) == 12


def test_a_full_queue_joins_the_assignment_and_only_the_batch_is_predicted() -> None:
    swav = objective(queue_size=4, queue_start_epoch=0)
    student = random_encodings(2, 6, 6)
    for queue in swav.queues:
        queue.push(F.normalize(torch.randn(4, 5), dim=1))
    rows = [queue.rows.clone() for queue in swav.queues]
    loss = swav(student, [], LATER)["cross_entropy"]
    scores = F.normalize(swav.projector(torch.cat([v.pooled for v in student])), dim=1).view(2, 6, 5)
    weight = swav.prototypes.weight
    scores = scores @ weight.T
    codes = [dense_codes(torch.cat([rows[a] @ weight.T, scores[a]]).detach())[-6:] for a in range(2)]
    torch.testing.assert_close(loss, dense(scores, codes), rtol=1e-4, atol=1e-5)


def test_the_assignment_beside_a_queue_is_that_of_lightly() -> None:
    scores = torch.stack([0.9 * wave(6, 7, pace=pace) for pace in (0.3, 0.5, 0.8)])
    queues = [0.9 * wave(4, 7, pace=pace) for pace in (0.35, 0.55)]
    codes = [dense_codes(torch.cat([view, queue]))[:6] for view, queue in zip(scores[:2], queues, strict=True)]
    assert float(dense(scores, codes)) == pytest.approx(LIGHTLY["loss_with_queues"], rel=1e-5)


def test_equal_images_are_told_dead_and_others_are_far_from_it() -> None:
    swav = objective(prototypes=40)
    student = random_encodings(2, 32, 6)
    swav(student, [], FIRST)
    entropy = swav.dead_values["code_entropy"]
    assert swav.gauges["code_entropy"] < entropy.low - 100 * 1e-3
    assert swav.gauges["embedding_spread"] > 50 * swav.dead_values["embedding_spread"].high
    alike = [view._replace(pooled=student[0].pooled[:1].expand(32, 6)) for view in student]
    swav(alike, [], FIRST)
    assert all(dead.low <= swav.gauges[name] <= dead.high for name, dead in swav.dead_values.items())


def test_prototypes_that_answer_all_images_alike_are_told_dead_though_embeddings_differ() -> None:
    """The way in which runs with too smooth an assignment end: the loss stays at ln K, and codes are nearly even."""
    swav = objective(out=64, prototypes=128)
    swav.projector = torch.nn.Sequential()  # embeddings are what comes in
    with torch.no_grad():
        swav.prototypes.weight[:, 32:] = 0  # prototypes look at half of the directions
    student = random_encodings(2, 200, 64)
    both: list[dict[str, float]] = []
    for share in (1.0, 0.05):  # of what embeddings have in those directions
        views = [e._replace(pooled=torch.cat([share * e.pooled[:, :32], e.pooled[:, 32:]], 1)) for e in student]
        loss = swav(views, [], LATER)["cross_entropy"].detach()
        both.append({name: float(value) for name, value in swav.gauges.items()})
        both[-1]["loss"] = float(loss)
    healthy, dead = both
    value = swav.dead_values["score_spread"]
    assert healthy["score_spread"] > 4 * value.high and value.low <= dead["score_spread"] < value.high / 2
    assert dead["embedding_spread"] > 0.6 and dead["loss"] == pytest.approx(math.log(128), abs=0.1)
    assert dead["code_entropy"] < swav.dead_values["code_entropy"].low  # which sees it only at the very end


def test_the_spread_of_scores_of_random_directions_is_one() -> None:
    torch.manual_seed(0)
    embeddings, prototypes = (F.normalize(torch.randn(count, 32), dim=1) for count in (4000, 300))
    assert float(score_spread(embeddings @ prototypes.T, 32)) == pytest.approx(1, abs=0.02)
