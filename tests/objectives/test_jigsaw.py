"""Puzzles beside what the authors' code gives (`tests/references/make_infomin.py`)."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from polygrain.objectives.jigsaw import JigsawContrast
from polygrain.objectives.queued import QueuedContrast
from polygrain.parts.heads import mlp
from polygrain.schedules import Time
from polygrain.views import Crops
from tests.objectives.encodings import random_encodings
from tests.objectives.test_contrastive_code import close, encoding
from tests.references import make_infomin as made

NOW = Time(0, 1, 1)


@pytest.fixture(scope="module")
def numbers() -> Any:
    return json.loads((Path(made.__file__).parent / "infomin.json").read_text())["losses"]


def objectives() -> tuple[JigsawContrast, QueuedContrast]:
    head = mlp((made.DIM, made.DIM, made.OUT), activation="relu")
    instance = QueuedContrast(head, made.OUT, queue_size=made.QUEUE, temperature=made.TEMPERATURE, queries=1)
    puzzles = JigsawContrast(made.DIM, hidden=made.DIM, out=made.OUT, partner=instance)
    return puzzles.double(), instance.double()


def test_three_steps_give_the_losses_gradients_queue_and_teacher_of_the_authors(numbers: Any) -> None:
    puzzles, instance = objectives()
    for side in (instance.projector.student, instance.projector.teacher):
        side.load_state_dict(made.moco_head())
    puzzles.load_state_dict(made.jigsaw_head())
    instance.queue.rows.copy_(made.moco_queue())
    optimizer = torch.optim.SGD([*instance.projector.student.parameters(), *puzzles.parameters()], lr=made.RATE)
    for step in range(made.STEPS):
        query, key = made.moco_batch(step)
        student = [encoding(query), *map(encoding, made.pieces(step).unbind(1))]
        terms = [objective(student, [encoding(key)], NOW)["info_nce"] for objective in (puzzles, instance)]
        optimizer.zero_grad()
        (made.BETA * terms[0] + (1 - made.BETA) * terms[1]).backward()
        assert float(terms[0].detach()) == pytest.approx(numbers["jigsaw"][step], rel=1e-6)
        assert float(terms[1].detach()) == pytest.approx(numbers["instance"][step], rel=1e-6)
        for name, parameter in puzzles.named_parameters():
            assert parameter.grad is not None
            close(parameter.grad, numbers["gradients"][step][name], 1e-5)
        optimizer.step()
        instance.update_teacher(made.MOMENTUM)  # after the step
    close(instance.queue.rows, numbers["queue"], 1e-6)
    assert int(instance.queue.pointer) == numbers["pointer"]
    for name, parameter in instance.projector.teacher.named_parameters():
        close(parameter, numbers["teacher"][name], 1e-6)


def test_the_vector_of_a_puzzle_depends_on_the_order_of_its_pieces_and_has_length_1() -> None:
    puzzles, _ = objectives()
    pieces = made.pieces(0).transpose(0, 1)  # (9, B, DIM)
    vectors = puzzles.puzzle(pieces)
    turned = puzzles.puzzle(pieces.flip(0))
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(made.BATCH))
    assert (vectors - turned).abs().max() > 0.1


def test_pieces_that_look_alike_in_all_images_are_told_dead() -> None:
    puzzles, _ = objectives()
    one = made.pieces(0)[:1].expand(made.BATCH, -1, -1)
    student = [encoding(one[:, 0]), *map(encoding, one.unbind(1))]
    puzzles(student, [encoding(made.moco_batch(0)[1])], NOW)
    dead = puzzles.dead_values["puzzle_spread"]
    assert dead.low <= float(puzzles.gauges["puzzle_spread"]) <= dead.high
    student = [encoding(one[:, 0]), *map(encoding, made.pieces(0).unbind(1))]
    puzzles(student, [encoding(made.moco_batch(0)[1])], NOW)
    assert float(puzzles.gauges["puzzle_spread"]) > 10 * dead.high


def test_only_nine_pieces_that_come_last_and_one_view_of_a_teacher_will_do() -> None:
    puzzles, _ = objectives()
    query = Crops(name="query", count=1, size=64, scale=(0.2, 1.0), recipes=("infomin",))
    pieces = Crops(name="pieces", count=9, size=32, scale=(0.6, 1.0), recipes=("mae",), jigsaw=True)
    assert puzzles.refuses((query, pieces), (query,)) is None
    for student, teacher in (((query,), (query,)), ((pieces, query), (query,)), ((query, pieces), ())):
        assert "pieces of a puzzle" in str(puzzles.refuses(student, teacher))


def test_what_holds_the_keys_cannot_be_left_out() -> None:
    puzzles, instance = objectives()
    with pytest.raises(ValueError, match="leave out 'jigsaw' instead"):
        puzzles.take_over(instance)


def test_a_query_alone_looks_for_a_key_whatever_other_views_there_are() -> None:
    _, instance = objectives()
    student = random_encodings(10, 4, made.DIM)
    student = [e._replace(pooled=e.pooled.double()) for e in student]
    key = [encoding(made.moco_batch(0)[1])]
    losses: list[Tensor] = []
    for views in (student, student[:1]):
        instance.eval()
        losses.append(instance(views, key, NOW)["info_nce"])
    assert torch.equal(*losses)
