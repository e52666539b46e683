import torch

from polygrain.losses.pairs import pair_weights


def test_two_large_pairs_and_twenty_small_pairs_count_half_each() -> None:
    weights = pair_weights(targets=2, views=12, large=2)
    # 0.5 / 2 for (0, 1) and (1, 0); 0.5 / 20 for every small view; nothing for (0, 0) and (1, 1)
    assert weights[0].tolist() == [0.0, 0.25, *[torch.tensor(0.025).item()] * 10]
    assert weights[1].tolist() == [0.25, 0.0, *[torch.tensor(0.025).item()] * 10]


def test_without_small_views_the_mean_over_large_pairs_stands_alone() -> None:
    assert pair_weights(targets=2, views=2, large=2).tolist() == [[0.0, 0.5], [0.5, 0.0]]


def test_weights_add_up_to_one() -> None:
    for targets, views, large in ((2, 12, 2), (2, 2, 2), (1, 5, 2), (2, 3, 3), (3, 7, 2)):
        torch.testing.assert_close(pair_weights(targets, views, large).sum(), torch.tensor(1.0))
