import math

import numpy as np
import pytest
import torch

from polygrain.evaluate.sampling import Sample, over_runs
from polygrain.evaluate.unlabelled.group import balance, gaussian, grouping
from polygrain.evaluate.unlabelled.instance import cosines_to_self_and_others, found, ignored, whitening
from polygrain.evaluate.unlabelled.neighbourhood import neighbour_lists, overlap
from polygrain.evaluate.unlabelled.twins import near_duplicates
from tests.evaluate.fakes import Coloured


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def grouped_by(rows, views, clusters, *, seed):
    return grouping(rows, views, gaussian(rows, seed), clusters, seed=seed)


def blobs(seed=0):
    """Four clusters far apart, of 40, 40, 20 and 20 rows, in an order that mixes them."""
    labels = torch.tensor([0, 0, 1, 1, 2, 3] * 20)
    return 10 * torch.eye(4)[labels] + 0.1 * noise(120, 4, seed=seed), labels.numpy()


def test_an_unchanged_image_is_ignored_whole_and_another_image_not_at_all():
    plain = noise(500, 64)
    assert ignored(cosines_to_self_and_others(5 * plain[:100], plain).mean(0)) == pytest.approx(1)
    assert ignored(cosines_to_self_and_others(noise(100, 64, seed=1), plain).mean(0)) == pytest.approx(0, abs=0.05)


def test_a_common_direction_of_all_vectors_makes_no_change_ignored():
    plain, other = noise(500, 64), noise(500, 64, seed=1)
    offset = 30 * torch.ones(64) / 8
    assert ignored(cosines_to_self_and_others(other + offset, plain + offset).mean(0)) == pytest.approx(0, abs=0.05)


def test_half_way_between_itself_and_others_is_a_half():
    assert ignored(np.array([0.9, 0.8])) == pytest.approx(0.5)


def test_cosines_equal_a_loop():
    plain, changed = noise(7, 3), noise(4, 3, seed=1)
    values = cosines_to_self_and_others(changed, plain)
    for i in range(4):
        others = [torch.cosine_similarity(plain[i], plain[j], dim=0).item() for j in range(7) if j != i]
        own = torch.cosine_similarity(changed[i], plain[i], dim=0).item()
        assert values[i].tolist() == pytest.approx([own, np.mean(others)], abs=1e-6)


def test_images_find_themselves_and_strangers_by_chance():
    plain = noise(50, 16)
    assert found(plain[:20] + 0.01, plain).mean() == 1
    hits = [found(noise(50, 16, seed=seed), plain).mean() for seed in range(1, 41)]
    assert abs(np.mean(hits) - 1 / 50) < 3 * math.sqrt(0.02 * 0.98 / 2000)


def test_neighbour_lists_equal_a_loop_and_leave_the_image_out():
    plain, changed = noise(12, 4), noise(5, 4, seed=1)
    lists = neighbour_lists(changed, plain, 3)
    for i, row in enumerate(lists.tolist()):
        order = torch.cosine_similarity(changed[i][None], plain, dim=1).argsort(descending=True).tolist()
        assert row == [j for j in order if j != i][:3]


def test_lists_overlap_whole_with_themselves_and_by_chance_with_others():
    plain = noise(60, 8)
    lists = neighbour_lists(plain, plain, 10)
    assert overlap(lists, lists.flip(1)).tolist() == [1.0] * 60
    other = overlap(lists, neighbour_lists(noise(60, 8, seed=1), plain, 10))
    assert abs(other.mean() - 10 / 59) < 3 * other.std() / 60**0.5


def test_overlap_counts_common_entries():
    assert overlap(torch.tensor([[1, 2, 3, 4]]), torch.tensor([[4, 9, 8, 2]])).tolist() == [0.5]


def test_balance_is_the_entropy_of_the_shares():
    assert balance(np.array([0, 1, 2, 3]), 4) == pytest.approx(1)
    assert balance(np.array([2, 2, 2]), 4) == 0
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert balance(np.array([0, 0, 0, 1]), 4) == pytest.approx(entropy / math.log(4))


def test_clusters_far_apart_are_found_again_and_kept():
    rows, labels = blobs()
    grouped = grouped_by(rows, rows[:60] + 0.1 * noise(60, 4, seed=1), 4, seed=0)
    assert grouped.stable == pytest.approx([1] * 5)
    assert grouped.kept == pytest.approx([1] * 5)
    assert grouped.balance == pytest.approx([balance(labels, 4)] * 5)


def test_noise_has_no_clusters_to_be_found_again_or_kept():
    grouped = grouped_by(noise(300, 64), noise(300, 64, seed=1), 10, seed=0)
    assert grouped.stable.mean() < 0.1
    assert abs(grouped.kept.mean()) < 0.03


def test_a_cloud_without_clusters_is_found_again_as_often_as_its_shape_alone_says():
    line = noise(300, 1) * torch.ones(1, 8) + 0.1 * noise(300, 8, seed=1) + 20 * torch.eye(8)[0]
    grouped = grouped_by(line, line[:100], 5, seed=0)
    assert grouped.stable.mean() > 0.4
    assert abs(grouped.stable.mean() - grouped.stable_by_shape.mean()) < 0.1


def test_a_gaussian_cloud_has_the_mean_and_covariance_it_is_drawn_for():
    rows = noise(4000, 3) @ torch.tensor([[2.0, 1, 0], [0, 1, 0], [0, 0, 0.1]]) + torch.tensor([5.0, 0, 1])
    drawn = gaussian(rows, 0)
    assert torch.cov(drawn.T).flatten().tolist() == pytest.approx(torch.cov(rows.T).flatten().tolist(), abs=0.3)
    assert drawn.mean(0).tolist() == pytest.approx(rows.mean(0).tolist(), abs=0.15)


def test_a_gaussian_cloud_of_many_images_takes_no_square_of_their_number():
    """100,000 squared numbers would be 80 GB. Fewer rows than dimensions span as many directions as there are."""
    many = noise(100_000, 2) * torch.tensor([3.0, 1])
    assert gaussian(many, 0).std(0).tolist() == pytest.approx([3, 1], rel=0.02)
    few = noise(5, 40)
    assert torch.linalg.matrix_rank(gaussian(few, 0) - few.double().mean(0)) == 4


def test_whitened_vectors_have_variance_one_in_every_direction_of_weight():
    rows = noise(500, 4) * torch.tensor([3.0, 2.0, 1.0, 1.0]) + 10
    white = whitening(rows)(rows)
    covariance = torch.cov(white.T, correction=0)
    variances = torch.linalg.eigvalsh(torch.cov(rows.double().T, correction=0))
    expected = variances / (variances + 0.01 * variances[-1])
    assert covariance.diagonal().tolist() == pytest.approx(expected.tolist(), rel=1e-6)
    assert white.mean(0).tolist() == pytest.approx([0] * 4, abs=1e-9)


def test_one_dominating_direction_does_not_make_a_change_ignored():
    plain = noise(500, 16) * torch.tensor([200.0] + [30.0] * 15)
    changed = torch.cat([plain[:100, :1], 30 * noise(100, 15, seed=1)], 1)
    white = whitening(plain)
    assert ignored(cosines_to_self_and_others(changed, plain).mean(0)) > 0.35
    assert ignored(cosines_to_self_and_others(white(changed), white(plain)).mean(0)) < 0.15


def test_the_same_seed_groups_the_same_way():
    first, second = (grouped_by(noise(100, 8), noise(50, 8, seed=1), 5, seed=3) for _ in range(2))
    assert all((one == other).all() for one, other in zip(first, second, strict=True))


def test_the_bootstrap_interval_of_a_share_is_that_of_a_binomial():
    values = np.repeat([1.0, 0.0], [300, 700])
    estimate = Sample(values).estimate()
    half = 1.96 * math.sqrt(0.3 * 0.7 / 1000)
    assert estimate.value == pytest.approx(0.3)
    assert (estimate.low, estimate.high) == pytest.approx((0.3 - half, 0.3 + half), abs=0.003)


def test_the_interval_of_runs_is_students():
    estimate = over_runs(np.array([0.1, 0.2, 0.3]))
    assert (estimate.low, estimate.high) == pytest.approx((0.2 - 4.303 * 0.1 / 3**0.5, 0.2 + 4.303 * 0.1 / 3**0.5))
    assert over_runs(np.array([0.9, 1.0])).high == 1


def test_near_duplicates_among_neighbours_are_named():
    class Twin(Coloured):
        def load(self, i):
            random = torch.Generator().manual_seed(3 if i in (2, 5) else i + 100)
            picture = torch.randint(30, 225, (3, 9, 9), generator=random).repeat_interleave(8, 1)
            return (picture.repeat_interleave(8, 2) + (i == 5)).to(torch.uint8)

    lists = torch.tensor([[1, 2], [0, 3], [5, 1], [4, 0], [3, 0], [0, 2]])
    twins = near_duplicates(Twin([0] * 6), np.arange(6), lists, workers=0)
    assert twins.pairs == [("picture 2", "picture 5")]
    assert twins.with_one.tolist() == [False, False, True, False, False, True]
