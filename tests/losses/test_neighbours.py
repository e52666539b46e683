import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from polygrain.losses.neighbours import knn_predict, nearest, ranked_classes, weighted_votes


def cloud(n, *, classes=7, dim=10, seed=0, noise=1.5):
    random = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, dim, generator=torch.Generator().manual_seed(99))
    labels = torch.randint(classes, (n,), generator=random)
    return centres[labels] + noise * torch.randn(n, dim, generator=random), labels


def top1(queries, bank, labels, *, classes=7, ks=(20,), temperature=0.07, **options):
    return knn_predict(queries, bank, labels, classes=classes, ks=ks, temperature=temperature, **options)[..., 0]


def test_equals_sklearn_on_500_points():
    bank, labels = cloud(500)
    queries, _ = cloud(200, seed=1)
    for k in (1, 5, 20, 100):
        reference = KNeighborsClassifier(
            n_neighbors=k, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.07)
        )
        expected = reference.fit(bank.double().numpy(), labels.numpy()).predict(queries.double().numpy())
        assert np.array_equal(top1(queries, bank, labels, ks=(k,))[0].numpy(), expected)


def test_several_k_in_one_pass_equal_each_k_alone():
    bank, labels = cloud(300)
    queries, _ = cloud(50, seed=1)
    together = knn_predict(queries, bank, labels, classes=7, ks=(1, 3, 10, 300))
    for row, k in zip(together, (1, 3, 10, 300), strict=True):
        assert torch.equal(row, knn_predict(queries, bank, labels, classes=7, ks=(k,))[0])


def test_a_query_that_is_in_the_bank_finds_itself():
    bank, labels = cloud(400)
    assert torch.equal(top1(bank, bank, labels, ks=(1,))[0], labels)


def test_one_hot_features_are_always_right_up_to_the_smallest_class():
    labels = torch.arange(60) % 4
    bank = torch.nn.functional.one_hot(labels).float()
    assert (top1(bank, bank, labels, classes=4, ks=(1, 5, 15)) == labels).all()


def test_permuted_labels_give_chance():
    bank, labels = cloud(2000, classes=10)
    queries, truth = cloud(2000, classes=10, seed=1)
    shuffled = labels[torch.randperm(2000, generator=torch.Generator().manual_seed(3))]
    accuracy = (top1(queries, bank, shuffled, classes=10)[0] == truth).float().mean().item()
    assert abs(accuracy - 0.1) < 3 * (0.1 * 0.9 / 2000) ** 0.5


def test_scale_and_common_rotation_change_nothing():
    bank, labels = cloud(300)
    queries, _ = cloud(100, seed=1)
    rotation = torch.linalg.qr(torch.randn(10, 10, generator=torch.Generator().manual_seed(5))).Q
    assert torch.equal(top1(queries, bank, labels), top1(7 * queries @ rotation, 0.1 * bank @ rotation, labels))


def test_a_high_temperature_is_the_unweighted_majority():
    bank, labels = cloud(300)
    queries, _ = cloud(100, seed=1)
    neighbours = nearest(queries, bank, 21).rows
    majority = torch.stack([torch.bincount(labels[row], minlength=7).argmax() for row in neighbours])
    counts = torch.stack([torch.bincount(labels[row], minlength=7).sort(descending=True).values for row in neighbours])
    clear = counts[:, 0] > counts[:, 1]  # the weights of a finite temperature break exact ties
    assert clear.sum() > 50
    assert torch.equal(top1(queries, bank, labels, ks=(21,), temperature=1e6)[0][clear], majority[clear])


def test_a_low_temperature_is_the_nearest_neighbour():
    bank, labels = cloud(300)
    queries, _ = cloud(100, seed=1)
    nearest_label = labels[nearest(queries, bank, 1).rows[:, 0]]
    assert torch.equal(top1(queries, bank, labels, ks=(20,), temperature=1e-5)[0], nearest_label)


@pytest.mark.parametrize("chunk_bytes", [1, 4 * 300 * 7, 2**30])
def test_chunks_change_no_prediction(chunk_bytes):
    bank, labels = cloud(300)
    queries, _ = cloud(100, seed=1)
    whole = knn_predict(queries, bank, labels, classes=7, ks=(5, 20))
    assert torch.equal(whole, knn_predict(queries, bank, labels, classes=7, ks=(5, 20), chunk_bytes=chunk_bytes))


@pytest.mark.parametrize("k", [1, 20, 300])
def test_a_bank_in_pieces_has_the_same_neighbours_and_more_votes_than_a_piece_has_rows(k):
    bank, _ = cloud(300)
    queries, _ = cloud(40, seed=1)
    whole, pieces = nearest(queries, bank, k), nearest(queries, bank, k, chunk_bytes=4 * 256 * 33)
    torch.testing.assert_close(whole.similarity, pieces.similarity)
    assert torch.equal(whole.rows, pieces.rows)


def test_votes_are_held_for_some_queries_at_a_time(monkeypatch):
    """Votes of all queries for all classes would grow with both: 5 GiB for iNaturalist 2018."""
    held = []

    def watched(neighbours, *rest, **more):
        held.append(len(neighbours.rows))
        return weighted_votes(neighbours, *rest, **more)

    monkeypatch.setattr("polygrain.losses.neighbours.weighted_votes", watched)
    bank, labels = cloud(300)
    queries, _ = cloud(100, seed=1)
    knn_predict(queries, bank, labels, classes=1000, ks=(5,), chunk_bytes=16 * 1000 * 30)
    assert held == [30, 30, 30, 10]


def test_ties_go_to_the_lowest_class():
    bank = torch.tensor([[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]])
    assert top1(bank[:1], bank, torch.tensor([5, 2, 4]), ks=(3,)).item() == 2


def test_classes_without_votes_are_not_ranked():
    votes = torch.tensor([[0.0, 2.0, 0.0, 3.0]])
    assert ranked_classes(votes, 4).tolist() == [[3, 1, -1, -1]]


def test_votes_are_cast_in_float32_under_autocast():
    bank, _ = cloud(300)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = nearest(bank, bank, 5)
    assert under.similarity.dtype == torch.float32
    assert torch.equal(under.rows, nearest(bank, bank, 5).rows)
