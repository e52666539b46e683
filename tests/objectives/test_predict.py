import torch
import torch.nn.functional as F

from polygrain.objectives.predict import Bootstrap, Siamese
from polygrain.schedules import Time
from tests.objectives.encodings import random_encodings

NOW = Time(0, 10, 10)


def test_byol_regresses_each_view_on_the_teachers_of_the_other_one_view_at_a_time() -> None:
    torch.manual_seed(0)
    objective = Bootstrap(6, hidden=8, predictor_hidden=7, out=5)
    with torch.no_grad():
        for parameter in objective.projector.teacher.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    student, teacher = random_encodings(2, 9, 6), random_encodings(2, 9, 6)
    loss = objective(student, teacher, NOW)["regression"]
    p = [F.normalize(objective.predictor(objective.projector.student(view.pooled)), dim=1) for view in student]
    z = [F.normalize(objective.projector.teacher(view.pooled), dim=1) for view in teacher]
    wanted = (p[0] - z[1]).square().sum(1).mean() + (p[1] - z[0]).square().sum(1).mean()
    torch.testing.assert_close(loss, wanted)
    loss.backward()
    assert all(p.grad is None for p in objective.projector.teacher.parameters())
    assert all(p.grad is not None for p in objective.projector.student.parameters())


def test_heads_of_byol_have_a_bias_in_the_first_layer_alone() -> None:
    objective = Bootstrap(6, hidden=8, predictor_hidden=7, out=5)
    shapes = {name: tuple(p.shape) for name, p in objective.named_parameters() if ".teacher." not in name}
    assert shapes["projector.student.0.weight"] == (8, 6) and shapes["projector.student.3.weight"] == (5, 8)
    assert shapes["predictor.0.weight"] == (7, 5) and shapes["predictor.3.weight"] == (5, 7)
    assert {name for name in shapes if name.endswith("bias")} == {
        "projector.student.0.bias", "projector.student.1.bias", "predictor.0.bias", "predictor.1.bias",
    }  # fmt: skip


def test_simsiam_compares_with_its_own_projection_which_gets_no_gradient() -> None:
    torch.manual_seed(0)
    objective = Siamese(6, hidden=8, bottleneck=2)
    student = random_encodings(2, 9, 6)
    loss = objective(student, [], NOW)["negative_cosine"]
    z = [objective.projector(view.pooled) for view in student]
    p = [objective.predictor(view) for view in z]
    aims = [F.normalize(view.detach(), dim=1) for view in z]
    wanted = -((F.normalize(p[0], dim=1) * aims[1]).sum(1) + (F.normalize(p[1], dim=1) * aims[0]).sum(1)).mean() / 2
    torch.testing.assert_close(loss, wanted)
    ours = torch.autograd.grad(loss, objective.projector[0].weight)[0]
    theirs = torch.autograd.grad(wanted, objective.projector[0].weight)[0]
    torch.testing.assert_close(ours, theirs)


def test_the_projection_of_simsiam_is_normed_and_the_bias_before_that_norm_stays() -> None:
    torch.manual_seed(0)
    objective = Siamese(6, hidden=8, bottleneck=2)
    projected = objective.projector(torch.randn(40, 6))
    torch.testing.assert_close(projected.mean(0), torch.zeros(8), atol=1e-5, rtol=0)
    torch.testing.assert_close(projected.std(0, correction=0), torch.ones(8), atol=1e-2, rtol=0)
    idle = {name for name, parameter in objective.named_parameters() if not parameter.requires_grad}
    assert idle == {"projector.6.bias"}
    assert isinstance(objective.predictor[-1], torch.nn.Linear) and objective.predictor[-1].bias is not None


def test_a_projector_that_gives_all_images_the_same_is_told_dead_and_a_fresh_one_is_far_from_it() -> None:
    torch.manual_seed(0)
    objective = Bootstrap(6, hidden=8, predictor_hidden=7, out=5)
    dead = objective.dead_values["target_spread"]
    student = random_encodings(2, 16, 6)
    objective(student, student, NOW)
    assert objective.gauges["target_spread"] > 50 * dead.high
    norm = objective.projector.teacher[1]
    torch.nn.init.zeros_(norm.weight)
    torch.nn.init.ones_(norm.bias)
    objective(student, student, NOW)
    assert dead.low <= objective.gauges["target_spread"] <= dead.high
