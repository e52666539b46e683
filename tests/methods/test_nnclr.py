"""NNCLR held against its algorithm, image by image."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from polygrain.methods.nnclr import NNCLR, NeighbourContrast
from polygrain.schedules import RunLength, Time
from polygrain.views import Crops
from tests.objectives.encodings import random_encodings

NOW = Time(0, 1, 1)
ROWS, IMAGES, DIM, OUT, TEMPERATURE = 7, 3, 6, 4, 0.3  # the queue wraps around in the third step


def objective() -> NeighbourContrast:
    torch.manual_seed(0)
    return NeighbourContrast(DIM, hidden=10, predictor_hidden=9, out=OUT, queue_size=ROWS, temperature=TEMPERATURE)


def by_hand(queue: list[Tensor], z: list[Tensor], p: list[Tensor]) -> float:
    """Algorithm 1 with loops: mean over images and both directions of -log softmax(NN(z_i) . p_k / T) at k = i."""
    total = 0.0
    for one, other in ((0, 1), (1, 0)):
        for i in range(IMAGES):
            neighbour = max(queue, key=lambda row: float(row @ z[one][i]))
            products = [float(neighbour @ (p[other][k] / p[other][k].norm())) / TEMPERATURE for k in range(IMAGES)]
            total += math.log(sum(map(math.exp, products))) - products[i]
    return total / (2 * IMAGES)


def test_three_steps_equal_the_algorithm_image_by_image_while_the_queue_turns_over() -> None:
    nnclr = objective()
    queue = [*nnclr.queue.rows.clone()]
    place = 0
    for _ in range(3):
        views = random_encodings(2, IMAGES, DIM)
        with torch.no_grad():
            embeddings = [nnclr.projector(view.pooled) for view in views]
            p = [nnclr.predictor(embedding) for embedding in embeddings]
        z = [F.normalize(embedding, dim=1) for embedding in embeddings]
        expected = by_hand(queue, z, p)
        assert float(nnclr(views, (), NOW)["info_nce"]) == pytest.approx(expected, rel=1e-5)
        for row in z[0]:
            queue[place] = row
            place = (place + 1) % ROWS
        torch.testing.assert_close(nnclr.queue.rows, torch.stack(queue))


def test_neighbours_get_no_gradient_and_evaluation_leaves_the_queue_alone() -> None:
    nnclr = objective()
    views = random_encodings(2, IMAGES, DIM)
    nnclr(views, (), NOW)["info_nce"].backward()
    assert nnclr.queue.rows.grad is None
    assert all(parameter.grad is not None for parameter in nnclr.parameters())
    before = nnclr.queue.rows.clone()
    nnclr.eval()(views, (), NOW)
    assert torch.equal(nnclr.queue.rows, before)


def test_predictions_that_are_all_the_same_give_the_logarithm_of_the_batch() -> None:
    nnclr = objective()
    torch.nn.init.zeros_(nnclr.predictor[-1].weight)
    assert float(nnclr(random_encodings(2, IMAGES, DIM), (), NOW)["info_nce"]) == pytest.approx(math.log(IMAGES))


def test_one_view_is_refused() -> None:
    one = Crops(name="one", count=1, size=8, scale=(0.25, 1.0), recipes=("simclr",))
    assert "sees 1" in str(objective().refuses([one], []))
    assert objective().refuses([one, one], []) is None


def test_the_rate_of_a_batch_of_4096_is_sixteen_times_that_of_256() -> None:
    steps = 1281167 // 4096
    optimization = NNCLR().optimization(RunLength(1281167, 4096, 1000, steps))
    assert max(optimization.lr(Time(step, steps, 1000)) for step in range(0, 6000, 4)) == pytest.approx(4.8, rel=1e-5)
    assert optimization.optimizer == "lars" and optimization.weight_decay(Time(0, steps, 1000)) == 1e-6
