import math

import pytest
import torch
import torch.nn.functional as F

from polygrain.objectives.distil import GroupDiscrimination, assignment_gauges
from polygrain.schedules import Time, constant
from tests.objectives.encodings import random_encodings
from tests.references.dense_mugs import dense_distillation

TIME = Time(5, 5, 4)  # epoch 1


def groups(**settings: object) -> GroupDiscrimination:
    torch.manual_seed(0)
    return GroupDiscrimination(
        6,
        hidden=12,
        out=8,
        prototypes=20,
        student_temperature=0.1,
        teacher_temperature=constant(0.05),
        centre_momentum=0.9,
        **{"freeze_epochs": 1, "fixed_norm": False, **settings},
    )


def unit_projection(projector: torch.nn.Module, encodings) -> torch.Tensor:
    return torch.stack([F.normalize(projector(e.pooled), dim=1) for e in encodings])


def test_the_teacher_is_centred_and_sharpened_and_the_student_is_not_centred() -> None:
    objective = groups()
    student, teacher = random_encodings(4, 3, 6), random_encodings(2, 3, 6)
    objective.centre.normal_()
    centre = objective.centre.clone()
    with torch.no_grad():
        objective.prototypes.teacher.weight_v.normal_()
        student_rows = F.normalize(objective.prototypes.student.weight_v, dim=1)
        teacher_rows = F.normalize(objective.prototypes.teacher.weight_v, dim=1)
        logits = unit_projection(objective.projector.teacher, teacher) @ teacher_rows.T
        targets = ((logits - centre) / 0.05).softmax(-1)
        ours = unit_projection(objective.projector.student, student)
    expected = dense_distillation(ours, student_rows, targets, 0.1, large=2)
    torch.testing.assert_close(objective(student, teacher, TIME)["cross_entropy"], expected)
    torch.testing.assert_close(objective.centre, 0.9 * centre + 0.1 * logits.mean((0, 1)))


def test_the_centre_stays_in_evaluation() -> None:
    objective = groups().eval()
    objective(random_encodings(4, 3, 6), random_encodings(2, 3, 6), TIME)
    assert objective.centre.abs().sum() == 0


@pytest.mark.parametrize(("epoch", "frozen"), [(0, True), (1, True), (2, False)])
def test_prototypes_lose_their_gradient_while_they_are_frozen(epoch: int, frozen: bool) -> None:
    objective, time = groups(freeze_epochs=2), Time(5 * epoch, 5, 4)
    objective(random_encodings(4, 3, 6), random_encodings(2, 3, 6), time)["cross_entropy"].backward()
    objective.after_backward(time)
    prototypes = objective.prototypes.student
    assert (prototypes.weight_v.grad is None) == (prototypes.weight_g.grad is None) == frozen
    assert all(parameter.grad is not None for parameter in objective.projector.student.parameters())


def test_gauges_of_one_prototype_for_all_and_of_an_even_spread() -> None:
    one = F.one_hot(torch.tensor([[3, 3]]), 8).float()
    gauges = assignment_gauges(one)
    assert gauges["teacher_entropy"] == 0 and gauges["perplexity"] == 1 and gauges["occupancy"] == 1 / 8
    even = torch.full((1, 2, 8), 1 / 8)
    torch.testing.assert_close(assignment_gauges(even)["teacher_entropy"], torch.tensor(math.log(8)))
    each = F.one_hot(torch.tensor([[0, 3, 5, 6]]), 8).float()
    torch.testing.assert_close(assignment_gauges(each)["perplexity"], torch.tensor(4.0))
    assert assignment_gauges(each)["occupancy"] == 0.5


def test_kl_is_the_loss_less_the_entropy_of_the_teacher() -> None:
    objective = groups()
    student, teacher = random_encodings(4, 3, 6), random_encodings(2, 3, 6)
    loss = objective(student, teacher, TIME)["cross_entropy"]
    gauges = objective.gauges
    torch.testing.assert_close(gauges["kl"] + gauges["teacher_entropy"], loss.detach())
    assert gauges["kl"] > 0
