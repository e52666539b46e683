"""MoCo v2 and Barlow Twins beside what their authors' code gives (`tests/references/make_contrastive.py`)."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from polygrain.objectives.queued import QueuedContrast
from polygrain.objectives.redundancy import RedundancyReduction
from polygrain.parts.heads import mlp
from polygrain.schedules import Time
from polygrain.views import Encoding, View
from tests.references import make_contrastive as made

NOW = Time(0, 1, 1)


@pytest.fixture(scope="module")
def numbers() -> Any:
    return json.loads((Path(made.__file__).parent / "contrastive.json").read_text())


def encoding(pooled: Tensor) -> Encoding:
    none = torch.zeros(len(pooled), dtype=torch.bool)
    view = View(torch.empty(len(pooled), 3, 8, 8), torch.zeros(len(pooled), 4), none, none, torch.arange(len(pooled)))
    return Encoding(view, pooled, pooled[:, None], torch.zeros(len(pooled), 1, 2), pooled)


def close(ours: Tensor, theirs: Any, tolerance: float) -> None:
    torch.testing.assert_close(ours.double(), torch.tensor(theirs, dtype=torch.float64), atol=tolerance, rtol=tolerance)


def test_three_steps_of_moco_give_the_losses_gradients_queue_and_teacher_of_the_authors(numbers: Any) -> None:
    theirs = numbers["moco"]
    head = mlp((made.DIM, made.DIM, made.OUT), activation="relu")
    objective = QueuedContrast(head, made.OUT, queue_size=made.QUEUE, temperature=made.TEMPERATURE).double()
    for side in (objective.projector.student, objective.projector.teacher):
        side.load_state_dict(made.moco_head())
    objective.queue.rows.copy_(made.moco_queue())
    optimizer = torch.optim.SGD(objective.projector.student.parameters(), lr=made.RATE)
    for step in range(made.STEPS):
        objective.update_teacher(made.MOMENTUM)  # first, as methods with `teacher_first` do
        query, key = made.moco_batch(step)
        loss = objective([encoding(query)], [encoding(key)], NOW)["info_nce"]
        optimizer.zero_grad()
        loss.backward()
        assert float(loss.detach()) == pytest.approx(theirs["losses"][step], rel=1e-6)
        for name, parameter in objective.projector.student.named_parameters():
            assert parameter.grad is not None
            close(parameter.grad, theirs["gradients"][step][name], 1e-5)
        optimizer.step()
    close(objective.queue.rows, theirs["queue"], 1e-6)
    assert int(objective.queue.pointer) == theirs["pointer"] == 12
    for name, parameter in objective.projector.teacher.named_parameters():
        close(parameter, theirs["teacher"][name], 1e-6)


def test_barlow_twins_has_the_loss_and_gradient_of_the_authors_on_one_device(numbers: Any) -> None:
    theirs = numbers["barlow"]
    objective = RedundancyReduction((made.WIDE, 8, 8, 5), off_diagonal=made.LAMBDA).double()
    objective.projector.load_state_dict(made.barlow_projector(), strict=False)
    loss = torch.stack(list(objective([encoding(x) for x in made.barlow_batch()], (), NOW).values())).sum()
    loss.backward()
    assert float(loss.detach()) == pytest.approx(theirs["loss"], rel=1e-9)
    gradients = {name: p.grad for name, p in objective.projector.named_parameters() if p.grad is not None}
    first = gradients.pop("0.weight")
    close(first[:, :5], theirs["gradients"].pop("0.weight of the first 5"), 1e-9)
    for name, gradient in gradients.items():
        close(gradient, theirs["gradients"][name], 1e-9)
    close(objective.norm.running_mean, theirs["running_mean"], 1e-9)
