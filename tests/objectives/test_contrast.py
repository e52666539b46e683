import torch
import torch.nn.functional as F

from polygrain.objectives.contrast import InstanceDiscrimination, QueueContrast, pooled
from polygrain.schedules import Time
from polygrain.views import Crops
from tests.objectives.encodings import random_encodings
from tests.references.dense_mugs import dense_info_nce

TIME = Time(0, 1, 1)
CROPS = Crops(name="teacher", count=2, size=8, scale=(0.25, 1.0), recipes=("dino_1",))


def instance(**settings: int) -> InstanceDiscrimination:
    torch.manual_seed(0)
    sizes = {"hidden": 12, "predictor_hidden": 10, "out": 8, "queue_size": 32, **settings}
    return InstanceDiscrimination(QueueContrast(6, temperature=0.2, **sizes))


def test_predictions_meet_normalised_keys_of_the_teacher_and_the_queue_as_it_was() -> None:
    objective = instance()
    student, teacher = random_encodings(4, 3, 6), random_encodings(2, 3, 6)
    contrast = objective.contrast
    with torch.no_grad():
        # another teacher than the student, so that the test sees which one is used
        contrast.projector.teacher[0].weight.add_(torch.randn(12, 6))
        keys = torch.stack([F.normalize(contrast.projector.teacher(e.pooled), dim=1) for e in teacher])
        predictions = torch.stack(
            [
                F.normalize(contrast.predictor(F.normalize(contrast.projector.student(e.pooled), dim=1)), dim=1)
                for e in student
            ]
        )
    expected = dense_info_nce(predictions, keys, contrast.queue.rows.clone(), 0.2, large=2)
    torch.testing.assert_close(objective(student, teacher, TIME)["info_nce"], expected)


def test_keys_enter_the_queue_after_the_loss_one_view_after_the_other() -> None:
    objective = instance()
    student, teacher = random_encodings(4, 3, 6), random_encodings(2, 3, 6)
    with torch.no_grad():
        keys = F.normalize(objective.contrast.projector.teacher(pooled(teacher)), dim=-1)
    objective(student, teacher, TIME)
    queue = objective.contrast.queue
    torch.testing.assert_close(queue.rows[:6], keys.flatten(0, 1))
    assert int(queue.pointer) == 6


def test_nothing_enters_the_queue_in_evaluation() -> None:
    objective = instance().eval()
    before = objective.contrast.queue.rows.clone()
    objective(random_encodings(4, 3, 6), random_encodings(2, 3, 6), TIME)
    assert torch.equal(objective.contrast.queue.rows, before)


def test_the_predictor_belongs_to_the_student_and_the_teacher_gets_no_gradient() -> None:
    objective = instance()
    sum(objective(random_encodings(4, 3, 6), random_encodings(2, 3, 6), TIME).values()).backward()
    for name, parameter in objective.named_parameters():
        assert (parameter.grad is None) == (".teacher." in name), name
    assert not [name for name, _ in objective.named_modules() if "predictor" in name and "teacher" in name]


def test_it_refuses_a_method_without_a_teacher_or_with_one_view() -> None:
    objective = instance()
    assert objective.refuses((CROPS,), (CROPS,)) is None
    assert "teacher" in str(objective.refuses((CROPS,), ()))
    single = Crops(name="one", count=1, size=8, scale=(0.25, 1.0), recipes=("dino_1",))
    assert "sees 1" in str(objective.refuses((single,), (CROPS,)))
