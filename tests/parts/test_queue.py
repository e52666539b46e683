import pytest
import torch
import torch.nn.functional as F

from polygrain.parts import queue as module
from polygrain.parts.queue import Queue
from tests.ranks import run_ranks


def numbered(*values: float) -> torch.Tensor:
    return torch.tensor(values)[:, None]


def test_rows_start_normal_and_on_request_with_unit_length() -> None:
    torch.manual_seed(0)
    plain, unit = Queue(4000, 16), Queue(4000, 16, unit=True)
    assert abs(plain.rows.mean()) < 0.02 and abs(plain.rows.std() - 1) < 0.02
    torch.testing.assert_close(unit.rows.norm(dim=1), torch.ones(4000))


def test_a_push_writes_at_the_pointer_and_wraps_around() -> None:
    queue = Queue(5, 1)
    queue.push(numbered(1, 2, 3))
    assert queue.rows[:3, 0].tolist() == [1, 2, 3] and int(queue.pointer) == 3 and int(queue.filled) == 3
    queue.push(numbered(4, 5, 6, 7))
    assert queue.rows[:, 0].tolist() == [6, 7, 3, 4, 5]
    assert int(queue.pointer) == 2 and int(queue.filled) == 5


def test_a_push_that_fits_exactly_brings_the_pointer_to_the_start() -> None:
    queue = Queue(4, 1)
    queue.push(numbered(1, 2))
    queue.push(numbered(3, 4))
    assert queue.rows[:, 0].tolist() == [1, 2, 3, 4] and int(queue.pointer) == 0


def test_of_more_vectors_than_rows_the_last_stay_as_if_pushed_one_by_one() -> None:
    whole, single = Queue(4, 1), Queue(4, 1)
    whole.push(numbered(0))
    single.push(numbered(0))
    whole.push(numbered(*range(1, 11)))
    for value in range(1, 11):
        single.push(numbered(value))
    assert torch.equal(whole.rows, single.rows) and torch.equal(whole.pointer, single.pointer)
    assert torch.equal(whole.filled, single.filled)


def test_only_kept_vectors_are_written_and_none_changes_nothing() -> None:
    queue = Queue(4, 1)
    queue.push(numbered(1, 2, 3), keep=torch.tensor([True, False, True]))
    assert queue.rows[:2, 0].tolist() == [1, 3] and int(queue.pointer) == 2
    before = queue.rows.clone()
    queue.push(numbered(8, 9), keep=torch.tensor([False, False]))
    assert torch.equal(queue.rows, before) and int(queue.pointer) == 2


def test_the_official_pointer_advances_twice_unless_the_push_wraps_around() -> None:
    queue = Queue(8, 1, official=True)
    start = queue.rows.clone()
    pointers = []
    for value in (1.0, 2.0, 3.0):
        queue.push(torch.full((3, 1), value))
        pointers.append(int(queue.pointer))
    # rows 0-2, pointer 6; rows 6, 7, 0, pointer 1 as this push wraps; rows 1-3, pointer 7
    assert pointers == [6, 1, 7]
    assert queue.rows[:4, 0].tolist() == [2, 3, 3, 3] and queue.rows[6:, 0].tolist() == [2, 2]
    assert torch.equal(queue.rows[4:6], start[4:6])


def test_an_official_push_that_ends_at_the_last_row_still_advances_twice() -> None:
    queue = Queue(6, 1, official=True)
    for _ in range(2):
        queue.push(numbered(1, 2, 3))
    # pointer 0 + 2 * 3 = 6, hence 0; again 6, hence 0: rows 3-5 are never written
    assert int(queue.pointer) == 0


@pytest.mark.parametrize("chunk", [3, 7, 4096])
def test_nearest_are_the_rows_of_highest_cosine(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", chunk)
    torch.manual_seed(0)
    queue, query = Queue(50, 6), 3 * torch.randn(4, 6)
    found = queue.nearest(query, 5)
    for row, vectors in zip(query, found, strict=True):
        cosines = F.cosine_similarity(row[None], queue.rows)
        assert torch.equal(vectors, queue.rows[cosines.argsort(descending=True)[:5]])


def test_official_memories_return_other_noise_than_they_search_until_written() -> None:
    torch.manual_seed(0)
    memory = Queue(6, 3, official=True)
    assert memory.values is not None
    best = F.cosine_similarity(memory.rows[2][None], memory.rows).argmax()
    assert best == 2
    assert torch.equal(memory.nearest(memory.rows[2:3], 1)[0, 0], memory.values[2])
    memory.push(torch.randn(4, 3))
    assert torch.equal(memory.nearest(memory.rows[2:3], 1)[0, 0], memory.rows[2])


def test_a_saved_queue_brings_its_values_along_or_takes_them_away() -> None:
    plain, official = Queue(6, 3), Queue(6, 3, official=True)
    plain.load_state_dict(official.state_dict())
    assert plain.values is not None and official.values is not None and torch.equal(plain.values, official.values)
    plain.load_state_dict(Queue(6, 3).state_dict())
    assert plain.values is None


def push_unequal_shares() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    queue = Queue(8, 2)
    rank = torch.distributed.get_rank()
    vectors = torch.arange(6.0).view(3, 2) + 10 * rank
    queue.push(vectors, keep=torch.tensor([[True, False, False], [True, True, True]][rank]))
    return queue.rows, queue.pointer


def test_ranks_that_keep_different_counts_hold_the_same_queue() -> None:
    (first, pointer), (second, other) = run_ranks(push_unequal_shares)
    assert torch.equal(first, second) and int(pointer) == int(other) == 4
    assert first[:4].tolist() == [[0, 1], [10, 11], [12, 13], [14, 15]]
