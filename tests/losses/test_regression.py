import math

import pytest
import torch
import torch.nn.functional as F

from polygrain.losses.pairs import pair_weights
from polygrain.losses.regression import negative_cosine, normalised_regression

BOTH = pair_weights(2, 2, large=2)  # p1 with z2 and p2 with z1, half each


def test_both_losses_equal_loops_over_images_and_pairs() -> None:
    torch.manual_seed(0)
    predictions, targets = torch.randn(2, 5, 7), torch.randn(2, 5, 7)
    squares, cosines = 0.0, 0.0
    for image in range(5):
        for view, other in ((0, 1), (1, 0)):
            p, z = predictions[view, image], targets[other, image]
            squares += float(sum((p / p.norm() - z / z.norm()) ** 2)) / 5
            cosines += float(sum(p * z) / math.sqrt(sum(p**2) * sum(z**2))) / 5
    assert float(normalised_regression(predictions, targets, 2 * BOTH)) == pytest.approx(squares, rel=1e-5)
    assert float(negative_cosine(predictions, targets, BOTH)) == pytest.approx(-cosines / 2, rel=1e-5)


@pytest.mark.parametrize(("scale", "regression", "cosine"), [(3.0, 0.0, -1.0), (-3.0, 8.0, 1.0)])
def test_aligned_and_opposed_vectors_give_the_ends_of_the_range_whatever_their_lengths(
    scale: float, regression: float, cosine: float
) -> None:
    torch.manual_seed(0)
    predictions = torch.randn(2, 4, 6)
    targets = scale * predictions.flip(0)
    assert float(normalised_regression(predictions, targets, 2 * BOTH)) == pytest.approx(regression, abs=1e-5)
    assert float(negative_cosine(predictions, targets, BOTH)) == pytest.approx(cosine, abs=1e-6)


def test_targets_get_no_gradient_and_predictions_that_of_the_cosine() -> None:
    torch.manual_seed(0)
    predictions = torch.randn(1, 3, 4, dtype=torch.double, requires_grad=True)
    targets = torch.randn(1, 3, 4, dtype=torch.double, requires_grad=True)
    negative_cosine(predictions, targets, torch.ones(1, 1)).backward()
    assert targets.grad is None and predictions.grad is not None
    p, z = predictions.detach()[0], F.normalize(targets.detach()[0], dim=1)
    unit, length = F.normalize(p, dim=1), p.norm(dim=1, keepdim=True)
    along = (unit * z).sum(1, keepdim=True)
    torch.testing.assert_close(predictions.grad[0], -(z - along * unit) / length / 3)  # closed form
