import pytest
import torch
import torch.nn.functional as F

from polygrain.objectives.contrast import QueueContrast
from polygrain.objectives.local_group import LocalGroupDiscrimination
from polygrain.parts.encoder import Encoder, EncoderSettings
from polygrain.parts.teacher import StudentTeacher
from polygrain.schedules import Time
from tests.objectives.encodings import random_encodings

TIME = Time(0, 1, 1)
DIM = 8


@pytest.fixture
def pair() -> StudentTeacher[Encoder]:
    torch.manual_seed(0)
    arguments = {"img_size": 16, "patch_size": 8, "embed_dim": DIM, "depth": 1, "num_heads": 2}
    pair = StudentTeacher(Encoder(EncoderSettings(position="dino", arguments=arguments)))
    with torch.no_grad():
        for side in (pair.student, pair.teacher):  # norms that differ from each other and from the identity
            side.model.norm.weight.normal_(1, 0.3)
            side.model.norm.bias.normal_(0, 0.3)
    return pair


def local_group(pair: StudentTeacher[Encoder], memory_size: int = 20, **settings: object) -> LocalGroupDiscrimination:
    contrast = QueueContrast(DIM, hidden=12, predictor_hidden=10, out=6, queue_size=16, temperature=0.2)
    settings = {"neighbours": 3, "depth": 1, **settings}
    return LocalGroupDiscrimination(pair, contrast, memory_size=memory_size, **settings)


@pytest.mark.parametrize("query", ["tokens", "patches"])
def test_each_side_aggregates_with_its_own_memory_block_and_norm(pair: StudentTeacher[Encoder], query: str) -> None:
    objective = local_group(pair, query=query)
    with torch.no_grad():
        for parameter in objective.aggregator.teacher.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    student, teacher = random_encodings(4, 2, DIM), random_encodings(2, 2, DIM)
    seen: list[torch.Tensor] = []
    objective.contrast.register_forward_pre_hook(lambda _, given: seen.extend(given))
    sides = (
        (student, objective.student_memory.rows.clone(), objective.aggregator.student, pair.student.model.norm),
        (teacher, objective.teacher_memory.rows.clone(), objective.aggregator.teacher, pair.teacher.model.norm),
    )
    objective(student, teacher, TIME)
    for (encodings, memory, aggregator, norm), vectors in zip(sides, seen, strict=True):
        for encoding, of_view in zip(encodings, vectors, strict=True):
            queries = encoding.unnormed if query == "tokens" else encoding.patches.mean(1)
            for one, vector in zip(queries, of_view, strict=True):
                nearest = memory[F.cosine_similarity(one[None], memory).argsort(descending=True)[:3]]
                torch.testing.assert_close(vector, norm(aggregator(one[None], nearest[None]))[0], rtol=1e-4, atol=1e-5)


def test_memories_take_the_first_view_of_every_image_and_of_weak_ones(pair: StudentTeacher[Encoder]) -> None:
    objective = local_group(pair)
    strong = torch.tensor([False, True, False])
    student, teacher = random_encodings(4, 3, DIM, strong=strong), random_encodings(2, 3, DIM)
    objective(student, teacher, TIME)
    kept, every = student[0].patches.mean(1)[~strong], teacher[0].patches.mean(1)
    torch.testing.assert_close(objective.student_memory.rows[:2], kept)
    torch.testing.assert_close(objective.teacher_memory.rows[:3], every)
    assert int(objective.student_memory.pointer) == 2 and int(objective.teacher_memory.pointer) == 3


def test_memories_stay_as_they_are_in_evaluation(pair: StudentTeacher[Encoder]) -> None:
    objective = local_group(pair).eval()
    objective(random_encodings(4, 3, DIM), random_encodings(2, 3, DIM), TIME)
    assert int(objective.student_memory.filled) == int(objective.teacher_memory.filled) == 0


def test_the_student_is_trained_through_query_and_norm_but_not_through_memories(pair: StudentTeacher[Encoder]) -> None:
    objective = local_group(pair)
    student, teacher = random_encodings(4, 3, DIM), random_encodings(2, 3, DIM)
    student = [encoding._replace(unnormed=encoding.unnormed.requires_grad_()) for encoding in student]
    objective(student, teacher, TIME)["info_nce"].backward()
    assert all(encoding.unnormed.grad is not None and encoding.unnormed.grad.any() for encoding in student)
    assert pair.student.model.norm.weight.grad.any() and pair.teacher.model.norm.weight.grad is None
    assert not objective.student_memory.rows.requires_grad


def test_the_encoders_are_not_part_of_the_objective(pair: StudentTeacher[Encoder]) -> None:
    objective = local_group(pair)
    parts = {name.split(".")[0] for name in objective.state_dict()}
    assert parts == {"contrast", "aggregator", "student_memory", "teacher_memory"}


def test_a_memory_smaller_than_the_neighbourhood_is_refused(pair: StudentTeacher[Encoder]) -> None:
    with pytest.raises(ValueError, match="a memory of 2 vectors has no 3 neighbours; raise memory_size to 3"):
        local_group(pair, memory_size=2)
