import math

import pytest
import torch
import torch.nn.functional as F

from polygrain.losses import distillation
from polygrain.losses.distillation import prototype_distillation, sharpened
from polygrain.losses.pairs import pair_weights
from tests.references.dense_mugs import dense_distillation


@pytest.mark.parametrize("chunk", [7, 40, 4096])
@pytest.mark.parametrize("views", [2, 5])
def test_loss_and_gradients_are_those_of_one_log_softmax_per_pair(
    views: int, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distillation, "CHUNK", chunk)
    torch.manual_seed(0)
    student = F.normalize(torch.randn(views, 3, 6), dim=-1).requires_grad_()
    weight_v, weight_g = torch.randn(40, 6, requires_grad=True), torch.rand(40, 1, requires_grad=True)
    targets = torch.randn(2, 3, 40).softmax(-1)
    loss = prototype_distillation(student, weight_v, weight_g, targets, pair_weights(2, views, 2), 0.1)
    dense = dense_distillation(student, weight_g * F.normalize(weight_v, dim=1), targets, 0.1, large=2)
    torch.testing.assert_close(loss, dense)
    inputs = (student, weight_v, weight_g)
    for ours, theirs in zip(torch.autograd.grad(loss, inputs), torch.autograd.grad(dense, inputs), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_loss_is_log_of_the_prototypes_where_the_student_prefers_none() -> None:
    weight_v = torch.ones(65536, 2)
    targets = torch.randn(2, 1, 65536).softmax(-1)
    loss = prototype_distillation(
        torch.ones(2, 1, 2), weight_v, torch.ones(65536, 1), targets, torch.ones(2, 2) / 4, 0.1
    )
    torch.testing.assert_close(loss, torch.tensor(math.log(65536)), rtol=1e-5, atol=0)


def test_loss_is_the_entropy_of_the_target_where_the_student_agrees() -> None:
    weight_v, student = torch.eye(3), torch.tensor([[[0.1, 0.2, 0.3]]])
    target = (student / 0.1).softmax(-1)  # 1, 2, 3
    loss = prototype_distillation(student, weight_v, torch.ones(3, 1), target, torch.ones(1, 1), 0.1)
    torch.testing.assert_close(loss, torch.special.entr(target).sum())


def test_sharpening_subtracts_the_centre_before_it_divides() -> None:
    logits, centre = torch.tensor([[0.3, 0.1]]), torch.tensor([0.1, 0.1])
    first = 1 / (1 + math.exp(-(0.2 - 0.0) / 0.05))
    torch.testing.assert_close(sharpened(logits, centre, 0.05), torch.tensor([[first, 1 - first]]))
