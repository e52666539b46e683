import math

import torch
import torch.nn.functional as F

from polygrain.losses.contrastive import info_nce
from polygrain.losses.pairs import pair_weights
from tests.references.dense_mugs import dense_info_nce


def unit(*shape: int) -> torch.Tensor:
    return F.normalize(torch.randn(*shape), dim=-1)


def test_loss_and_gradient_are_those_of_one_softmax_per_pair() -> None:
    torch.manual_seed(0)
    for views in (2, 5):
        predictions, targets, negatives = unit(views, 3, 8).requires_grad_(), unit(2, 3, 8), unit(50, 8)
        loss = info_nce(predictions, targets, negatives, pair_weights(2, views, 2), 0.2).loss
        dense = dense_info_nce(predictions, targets, negatives, 0.2, large=2)
        torch.testing.assert_close(loss, dense)
        torch.testing.assert_close(
            torch.autograd.grad(loss, predictions)[0], torch.autograd.grad(dense, predictions)[0]
        )


def test_loss_is_log_of_one_plus_count_where_all_products_are_equal() -> None:
    same = F.normalize(torch.ones(8), dim=0)
    loss, accuracy = info_nce(
        same.expand(12, 4, 8), same.expand(2, 4, 8), same.expand(65536, 8), pair_weights(2, 12, 2), 0.2
    )
    torch.testing.assert_close(loss, torch.tensor(math.log(65537)))
    assert accuracy == 0


def test_closed_form_of_one_positive_and_one_opposite_negative() -> None:
    one = torch.tensor([[[1.0, 0.0]]])
    loss, accuracy = info_nce(one, one, torch.tensor([[-1.0, 0.0]]), torch.ones(1, 1), 0.5)
    torch.testing.assert_close(loss, torch.tensor(math.log1p(math.exp(-4))))
    assert accuracy == 1


def test_accuracy_is_the_weighted_share_of_positives_above_every_negative() -> None:
    predictions = torch.tensor([[[1.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [1.0, 0.0]]])  # (V 2, B 2, D 2)
    targets = torch.tensor([[[1.0, 0.0], [0.6, 0.8]]])  # (T 1, B 2, D 2): products 1, 0.6; 0, 0.6
    negatives = torch.tensor(
        [[0.8, -0.6], [-0.6, -0.8]]
    )  # highest product 0.8 with the first axis, -0.6 with the other
    accuracy = info_nce(predictions, targets, negatives, torch.tensor([[0.25, 0.75]]), 0.2).accuracy
    torch.testing.assert_close(accuracy, torch.tensor(0.25 * 0.5 + 0.75 * 0.5))


def test_it_computes_in_float32_under_autocast() -> None:
    torch.manual_seed(0)
    predictions, targets, negatives = unit(4, 3, 8), unit(2, 3, 8), unit(50, 8)
    weights = pair_weights(2, 4, 2)
    exact = info_nce(predictions, targets, negatives, weights, 0.2).loss
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(info_nce(predictions, targets, negatives, weights, 0.2).loss, exact, rtol=0, atol=0)
