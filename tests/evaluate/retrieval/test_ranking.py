import numpy as np
import pytest
import torch

from polygrain.evaluate.retrieval.ranking import average_precision, blocks, precision_at, ranks_of, recall_at


def listed(ranks, length=10):
    """Similarities of one query in whose list the positives stand at these ranks, and which those are."""
    positive = torch.zeros(1, length, dtype=torch.bool)
    positive[0, ranks] = True
    return -torch.arange(length)[None].float(), positive


def slowly(similarity, positive, junk, limit=None):
    """The sum of trapezoids, one query and one rank at a time, as in the package of Holidays."""
    order = sorted(range(len(similarity)), key=lambda i: (-similarity[i], i))
    kept = [i for i in order if not junk[i]]
    ranks = [rank for rank, i in enumerate(kept) if positive[i]]
    total, area = len(ranks), 0.0
    for j, rank in enumerate(ranks):
        if limit is not None and rank >= limit:
            continue
        area += ((1.0 if rank == 0 else j / rank) + (j + 1) / (rank + 1)) / 2 / total
    return area


def test_average_precision_by_hand_is_that_of_trapezoids_not_of_steps():
    ranks = ranks_of(*listed([0, 2, 5]))
    assert ranks.ranks.tolist() == [[0, 2, 5]]
    # (1 + 1) / 2, (1/2 + 2/3) / 2, (2/5 + 3/6) / 2, each a third; steps would give (1 + 2/3 + 3/6) / 3 = 0.722
    assert average_precision(ranks).item() == pytest.approx((1 + 7 / 12 + 0.45) / 3)
    assert average_precision(ranks).item() == pytest.approx(0.678, abs=5e-4)


@pytest.mark.parametrize("limit", [None, 6])
def test_average_precision_is_what_one_rank_at_a_time_gives(limit):
    random = np.random.default_rng(0)
    similarity = random.integers(0, 12, (30, 25)).astype(np.float32)  # with many equals
    positive = random.random((30, 25)) < 0.2
    junk = (random.random((30, 25)) < 0.2) & ~positive
    positive[:, 3], junk[:, 3] = True, False
    ranks = ranks_of(*map(torch.from_numpy, (similarity, positive, junk)))
    expected = [slowly(*row, limit) for row in zip(similarity, positive, junk, strict=True)]
    np.testing.assert_allclose(average_precision(ranks, limit).numpy(), expected, atol=1e-12)


def test_lists_that_begin_with_all_positives_score_one():
    assert average_precision(ranks_of(*listed([0, 1, 2]))).item() == pytest.approx(1.0)


def test_a_reversed_list_scores_least():
    similarity, positive = listed([0, 1, 2])
    worst = average_precision(ranks_of(-similarity, positive)).item()
    for seed in range(20):
        shuffled = positive[:, torch.randperm(10, generator=torch.Generator().manual_seed(seed))]
        assert average_precision(ranks_of(similarity, shuffled)).item() >= worst


def test_junk_counts_neither_way():
    similarity, positive = listed([1, 4])
    junk = torch.zeros_like(positive)
    junk[0, [0, 2, 9]] = True
    ranks = ranks_of(similarity, positive, junk)
    assert ranks.ranks.tolist() == [[0, 2]]
    moved = similarity.clone()
    moved[0, [0, 2, 9]] = torch.tensor([-20.0, 5.0, 7.0])
    assert torch.equal(ranks_of(moved, positive, junk).ranks, ranks.ranks)


def test_only_the_order_of_similarities_counts():
    random = torch.Generator().manual_seed(0)
    similarity = torch.rand(5, 40, generator=random) - 1.5  # all below 0
    positive = torch.rand(5, 40, generator=random) < 0.2
    first, second = ranks_of(similarity, positive), ranks_of(similarity.exp(), positive)
    assert average_precision(first).tolist() == average_precision(second).tolist()


def test_a_query_without_positives_is_no_number():
    ranks = ranks_of(*listed([]))
    assert average_precision(ranks).isnan().item()
    assert recall_at(ranks, 1).isnan().item()
    assert precision_at(ranks, 1).isnan().item()


def test_a_positive_behind_the_end_of_a_list_was_not_found():
    assert average_precision(ranks_of(*listed([0, 7])), limit=5).item() == pytest.approx(0.5)
    assert average_precision(ranks_of(*listed([7])), limit=5).item() == 0.0


def test_recall_asks_for_any_positive_among_the_first():
    ranks = ranks_of(*listed([2, 6]))
    assert [recall_at(ranks, k).item() for k in (1, 2, 3, 10)] == [0, 0, 1, 1]


def test_precision_is_over_no_more_than_up_to_the_last_positive():
    ranks = ranks_of(*listed([0, 2]))
    assert [precision_at(ranks, k).item() for k in (1, 2, 10)] == pytest.approx([1, 1 / 2, 2 / 3])


def test_blocks_cover_every_query_once():
    rows = [row for block in blocks(23, 10, block_bytes=200) for row in range(23)[block]]
    assert rows == list(range(23))
    assert len(blocks(23, 10, block_bytes=200)) == 5
