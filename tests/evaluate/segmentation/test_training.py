import copy
import math

import pytest
import torch

from polygrain.evaluate.segmentation.dense import Heads, LinearHead
from polygrain.evaluate.segmentation.sets import VOID
from polygrain.evaluate.segmentation.training import head_optimizer, heads_loss, optimise, pixel_loss, polynomial
from tests.evaluate.segmentation.shapes import draws


def test_the_learning_rate_follows_a_polynomial_behind_a_warm_up():
    factor = polynomial(100, power=0.9, warmup_steps=10, least=0.01)
    assert factor(0) == pytest.approx(1e-6)
    assert factor(5) == pytest.approx((0.99 * 0.95**0.9 + 0.01) * (0.5 + 0.5e-6))
    assert factor(40) == pytest.approx(0.99 * 0.6**0.9 + 0.01)
    assert factor(100) == pytest.approx(0.01)
    assert polynomial(10, power=1.0, warmup_steps=0)(10) == 0


def test_the_loss_is_a_mean_over_all_pixels_to_which_void_ones_add_nothing():
    logits = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    classes = draws(2, 4, 4, classes=4) - 1  # -1 is void
    terms = [
        -math.log(math.exp(logits[b, classes[b, y, x], y, x]) / sum(math.exp(v) for v in logits[b, :, y, x]))
        for b in range(2)
        for y in range(4)
        for x in range(4)
        if classes[b, y, x] != VOID
    ]
    assert 0 < len(terms) < 32
    assert pixel_loss(logits, classes).item() == pytest.approx(sum(terms) / 32, rel=1e-5)


def test_a_batch_of_nothing_but_void_has_no_loss():
    assert pixel_loss(torch.randn(1, 3, 2, 2), torch.full((1, 4, 4), VOID)).item() == 0


def alone_on(head, batches, *, rate):
    optimizer = head_optimizer([head], (rate,), name="sgd", weight_decay=0.0)
    optimise(
        heads_loss(torch.nn.Identity(), Heads([head])), batches, optimizer, [lambda step: 1.0], steps=len(batches),
        device="cpu", features_of=torch.nn.Identity(), name_of="crop {}".format,
    )  # fmt: skip


def batches(count):
    random = torch.Generator().manual_seed(0)
    for i in range(count):
        yield torch.randn(2, 5, 4, 4, generator=random), draws(2, 8, 8, classes=3, seed=i)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_heads_that_are_trained_together_are_what_each_would_be_alone(name):
    torch.manual_seed(0)
    heads = Heads(LinearHead(5, 3, batch_norm=True, dropout=0.0) for _ in range(2))
    alone = Heads([copy.deepcopy(heads[1])])
    for some, rates in ((heads, (0.1, 0.01)), (alone, (0.01,))):
        optimizer = head_optimizer(some, rates, name=name, weight_decay=0.05)
        factors = [polynomial(6, power=1.0, warmup_steps=2) for _ in rates]
        optimise(
            heads_loss(torch.nn.Identity(), some), batches(6), optimizer, factors, steps=6, device="cpu",
            features_of=torch.nn.Identity(), name_of=str,
        )  # fmt: skip
    for a, b in zip(heads[1].parameters(), alone[0].parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_a_loss_that_is_not_finite_stops_the_run():
    head = LinearHead(5, 3, batch_norm=False, dropout=0.0)
    with pytest.raises(ValueError, match=r"the loss is (nan|inf) at step [12]; lower the learning rate"):
        alone_on(head, list(batches(3)), rate=1e38)


def test_an_image_whose_features_are_not_finite_is_named_and_no_learning_rate_is_blamed():
    head = LinearHead(5, 3, batch_norm=False, dropout=0.0)
    first, second = batches(2)
    second[0][1, 4, 0, 0] = math.nan
    with pytest.raises(ValueError, match="the encoder's features of 'crop 3' are not finite; its weights may be dam"):
        alone_on(head, [first, second], rate=0.1)
