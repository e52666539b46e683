import numpy as np
import pytest

from polygrain.train.order import Order


def steps_of(order: Order, start: int, stop: int) -> list[list[int]]:
    return [[image for _, image in batch] for batch in order.batches(start, stop)]


def test_an_epoch_shows_every_image_once() -> None:
    order = Order(images=12, batch_size=4, seed=3)
    seen = np.concatenate(steps_of(order, 0, order.steps_per_epoch))
    assert sorted(seen.tolist()) == list(range(12))


def test_the_last_incomplete_batch_is_dropped() -> None:
    order = Order(images=11, batch_size=4, seed=3)
    assert order.steps_per_epoch == 2
    assert [len(batch) for batch in order.batches(0, 5)] == [4] * 5


def test_epochs_have_different_orders_and_name_themselves() -> None:
    order = Order(images=64, batch_size=64, seed=0)
    first, second = order.batches(0, 2)
    assert {epoch for epoch, _ in first} == {0} and {epoch for epoch, _ in second} == {1}
    assert [image for _, image in first] != [image for _, image in second]


def test_resuming_in_the_middle_of_an_epoch_continues_the_same_stream() -> None:
    order = Order(images=50, batch_size=8, seed=1, accumulate=2)
    assert steps_of(order, 0, 15)[2 * 9 :] == steps_of(order, 9, 15)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_ranks_together_see_in_rank_order_what_one_process_sees(accumulate: int) -> None:
    one = steps_of(Order(images=40, batch_size=8, seed=2, accumulate=accumulate), 0, 7)
    ranks = [
        steps_of(Order(images=40, batch_size=8, seed=2, rank=r, ranks=2, accumulate=accumulate), 0, 7) for r in (0, 1)
    ]
    assert [a + b for a, b in zip(*ranks, strict=True)] == one


def test_a_batch_larger_than_the_data_is_refused_with_both_numbers() -> None:
    with pytest.raises(ValueError, match=r"batch size 64 is larger than the data \(10 images\)"):
        Order(images=10, batch_size=64, seed=0)


def test_a_batch_that_does_not_divide_among_ranks_is_refused_with_the_mend() -> None:
    with pytest.raises(ValueError, match="take a multiple of 6"):
        Order(images=100, batch_size=10, seed=0, ranks=3, accumulate=2)
