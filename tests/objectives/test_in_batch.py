import pytest
import torch
import torch.nn.functional as F
from torch import nn

from polygrain.objectives.in_batch import NTXent, PredictedContrast, pivot_pairs
from polygrain.objectives.queued import QueuedContrast
from polygrain.objectives.redundancy import RedundancyReduction
from polygrain.parts.heads import mlp
from polygrain.schedules import Time
from polygrain.views import Crops
from tests.objectives.encodings import random_encodings
from tests.references.dense_contrast import dense_barlow, dense_mocov3, dense_nt_xent, dense_queue

NOW = Time(0, 1, 1)
ONE = Crops(name="one", count=1, size=8, scale=(0.25, 1.0), recipes=("simclr",))
TWO = Crops(name="two", count=2, size=8, scale=(0.25, 1.0), recipes=("simclr",))


def head(*widths: int) -> nn.Sequential:
    torch.manual_seed(0)
    return mlp(widths, activation="relu", norm="batch", bias=False, last_bias=False, last_norm=True)


def test_nt_xent_projects_both_views_in_one_batch() -> None:
    objective = NTXent(head(6, 12, 8), temperature=0.5)
    x, y = random_encodings(2, 5, 6)
    z = F.normalize(objective.projector(torch.cat([x.pooled, y.pooled])).detach(), dim=1)
    expected = dense_nt_xent(z[:5], z[5:], 0.5)
    assert float(objective([x, y], (), NOW)["nt_xent"]) == pytest.approx(expected, rel=1e-6)
    assert float(objective([y, x], (), NOW)["nt_xent"]) == pytest.approx(expected, rel=1e-6)


def test_of_four_views_the_first_two_are_paired_with_all() -> None:
    objective = NTXent(nn.Identity(), temperature=0.5)
    views = random_encodings(4, 5, 6)
    units = [F.normalize(view.pooled, dim=1) for view in views]
    ordered = [(0, 1), (0, 2), (0, 3), (1, 0), (1, 2), (1, 3)]
    expected = sum(dense_nt_xent(units[i], units[j], 0.5) for i, j in ordered) / len(ordered)
    assert float(objective(views, (), NOW)["nt_xent"]) == pytest.approx(expected, rel=1e-6)
    assert pivot_pairs(2) == {(0, 1): 1.0}


def test_predictions_meet_the_teachers_keys_of_the_other_view() -> None:
    objective = PredictedContrast(head(6, 12, 8), head(8, 12, 8), temperature=0.2)
    student, teacher = random_encodings(2, 5, 6), random_encodings(2, 5, 6)
    with torch.no_grad():
        objective.projector.teacher[0].weight.add_(torch.randn(12, 6))
        keys = [F.normalize(objective.projector.teacher(e.pooled), dim=1) for e in teacher]
        queries = [F.normalize(objective.predictor(objective.projector.student(e.pooled)), dim=1) for e in student]
    loss = objective(student, teacher, NOW)["info_nce"]
    assert float(loss) == pytest.approx(dense_mocov3(queries, keys, 0.2), rel=1e-6)
    loss.backward()
    for name, parameter in objective.named_parameters():
        assert (parameter.grad is None) == (".teacher." in name), name


def queued(**settings: bool) -> QueuedContrast:
    torch.manual_seed(0)
    return QueuedContrast(mlp((6, 12, 8), activation="relu"), 8, queue_size=16, temperature=0.2, **settings)


def test_the_query_meets_its_key_and_the_keys_of_earlier_steps() -> None:
    objective = queued()
    (student,), (teacher,) = random_encodings(1, 5, 6), random_encodings(1, 5, 6)
    with torch.no_grad():
        objective.projector.teacher[0].weight.add_(torch.randn(12, 6))
        query = F.normalize(objective.projector.student(student.pooled), dim=1)
        key = F.normalize(objective.projector.teacher(teacher.pooled), dim=1)
    expected = dense_queue(query, key, objective.queue.rows.clone(), 0.2)
    assert float(objective([student], [teacher], NOW)["info_nce"]) == pytest.approx(expected, rel=1e-6)
    torch.testing.assert_close(objective.queue.rows[:5], key)
    assert torch.allclose(objective.queue.rows.norm(dim=1), torch.ones(16))


def test_no_first_row_is_left_once_as_many_keys_have_come() -> None:
    objective = queued()
    first = objective.queue.rows.clone()
    for _ in range(4):  # 4 times 5 keys for 16 rows
        objective(random_encodings(1, 5, 6), random_encodings(1, 5, 6), NOW)
    assert not (objective.queue.rows[:, None] == first).all(2).any()
    assert int(objective.queue.pointer) == 4


def test_both_directions_are_averaged_and_no_view_meets_itself() -> None:
    objective = queued(same_crops=True)
    views = random_encodings(2, 5, 6)
    with torch.no_grad():
        units = [F.normalize(objective.projector.student(view.pooled), dim=1) for view in views]
    rows = objective.queue.rows.clone()
    expected = (dense_queue(units[0], units[1], rows, 0.2) + dense_queue(units[1], units[0], rows, 0.2)) / 2
    assert float(objective(views, views, NOW)["info_nce"]) == pytest.approx(expected, rel=1e-6)


def test_redundancy_terms_are_the_papers_sums_element_by_element() -> None:
    objective = RedundancyReduction((6, 12, 7), off_diagonal=0.0051)
    x, y = random_encodings(2, 9, 6)
    embedded = [objective.projector(view.pooled).detach() for view in (x, y)]
    terms = objective([x, y], (), NOW)
    total = float((terms["invariance"] + terms["redundancy"]).detach())
    assert total == pytest.approx(dense_barlow(embedded[0], embedded[1], 0.0051), rel=1e-5)


@pytest.mark.parametrize(
    ("objective", "reason"),
    [
        (NTXent(nn.Identity(), temperature=1), "compares at least two views"),
        (RedundancyReduction((6, 6), off_diagonal=1), "correlates at least two views"),
    ],
)
def test_a_student_with_one_view_is_refused(objective: NTXent, reason: str) -> None:
    assert reason in str(objective.refuses((ONE,), ()))
    assert objective.refuses((TWO,), ()) is None


def test_targets_from_a_teacher_need_one() -> None:
    assert "teacher" in str(PredictedContrast(head(6, 8), head(8, 8), temperature=1).refuses((TWO,), ()))
    assert "teacher" in str(queued().refuses((ONE,), ()))
    assert queued().refuses((ONE,), (ONE,)) is None
    assert "sees 1" in str(queued(same_crops=True).refuses((ONE,), (ONE,)))
