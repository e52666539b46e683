import numpy as np
import pytest
import torch

from polygrain.evaluate.unlabelled.region import Leak, Side, crop_agreement, patch_ranks, position_leak
from polygrain.views import patch_centres


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def random_boxes(count, seed, side=100):
    random = np.random.default_rng(seed)
    size = random.integers(50, side, (count, 2))
    corner = np.floor(random.random((count, 2)) * (side - size + 1))
    return torch.from_numpy(np.concatenate([corner, size], 1)).float()


def place_codes(box, flipped, grid):
    """Unit-like vectors that only nearby places of the source image share."""
    centres = patch_centres(box, flipped, *grid)
    y, x = torch.meshgrid(torch.arange(0, 100, 4.0), torch.arange(0, 100, 4.0), indexing="ij")
    nodes = torch.stack([y.flatten(), x.flatten()], 1)
    return torch.exp(-torch.cdist(centres, nodes.expand(len(box), -1, -1)).square() / 50)


def sides(count=40, grid=(6, 6), encode=place_codes):
    made = []
    for seed in (1, 2):
        box, flipped = random_boxes(count, seed), torch.arange(count) % (2 * seed) == 0
        made.append(Side(encode(box, flipped, grid), grid, box, flipped))
    return made


def test_the_same_crop_twice_is_found_everywhere():
    one = Side(gaussian(5, 16, 8), (4, 4), random_boxes(5, 0), torch.tensor([True, False, True, False, False]))
    found = crop_agreement(one, one)
    assert found.found.tolist() == [1.0] * 5
    assert found.same.tolist() == pytest.approx([1.0] * 5)


def test_vectors_that_tell_their_place_in_the_source_are_found_in_mirrored_crops_too():
    a, b = sides()
    agreement = crop_agreement(a, b)
    assert agreement.found.nanmean() > 0.99
    unmirrored = crop_agreement(a._replace(flipped=~a.flipped), b)
    assert unmirrored.found.nanmean() < 0.5


def test_random_vectors_find_their_place_by_chance():
    a, b = sides(200, encode=lambda box, flipped, grid: gaussian(len(box), 36, 16, seed=int(box.sum())))
    agreement = crop_agreement(a, b, reach=1)
    difference = (agreement.found - agreement.chance)[~agreement.found.isnan()]
    assert abs(difference.mean()) < 3 * difference.std() / len(difference) ** 0.5
    assert abs((agreement.same - agreement.other).nanmean()) < 0.02


def test_found_and_chance_equal_a_loop_over_patches():
    a, b = sides(6, (3, 5), lambda box, flipped, grid: gaussian(len(box), 15, 4, seed=int(box.sum())))
    agreement = crop_agreement(a, b, reach=1)
    for i in range(6):
        hits, chances = [], []
        top, left, height, width = b.box[i].tolist()
        for p, (y, x) in enumerate(patch_centres(a.box, a.flipped, 3, 5)[i].tolist()):
            if not (top <= y <= top + height and left <= x <= left + width):
                continue
            cosines = torch.cosine_similarity(a.patches[i, p][None], b.patches[i], dim=1)
            near = [
                abs(y - v) <= 1.5 * height / 3 and abs(x - u) <= 1.5 * width / 5
                for v, u in patch_centres(b.box, b.flipped, 3, 5)[i].tolist()
            ]
            hits.append(near[int(cosines.argmax())])
            chances.append(np.mean(near))
        assert agreement.found[i].item() == pytest.approx(np.mean(hits))
        assert agreement.chance[i].item() == pytest.approx(np.mean(chances))


def test_crops_that_share_nothing_are_not_a_number_rather_than_wrong():
    left = Side(gaussian(1, 4, 3), (2, 2), torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([False]))
    right = left._replace(box=torch.tensor([[0.0, 50, 10, 10]]))
    assert all(values.isnan().all() for values in crop_agreement(left, right))


def test_rank_of_patches_counts_equal_directions():
    basis = torch.cat([torch.eye(6), -torch.eye(6)])  # mean 0, six equal singular values
    assert patch_ranks(torch.stack([basis, 5 * basis + 3])).tolist() == pytest.approx([6, 6], rel=1e-6)


def test_rank_of_patches_on_a_line_is_one_and_of_equal_ones_zero():
    line = torch.linspace(0, 1, 10)[:, None] * torch.ones(4)
    assert patch_ranks(torch.stack([line, torch.ones(10, 4)])).tolist() == pytest.approx([1, 0], abs=1e-6)


def places(count):
    return torch.rand(count, 16, 2, generator=torch.Generator().manual_seed(3))


def test_vectors_that_hold_their_place_leak_it_whole():
    where = places(60)
    patches = torch.cat([where @ gaussian(2, 8), gaussian(60, 16, 4, seed=1)], 2)
    assert position_leak(patches, where).r2 > 0.99


def test_vectors_without_place_leak_nothing():
    assert abs(position_leak(gaussian(200, 16, 32), places(200)).r2) < 0.02


def test_constant_vectors_leak_nothing():
    assert position_leak(torch.ones(40, 16, 8), places(40)).r2 == pytest.approx(0, abs=1e-2)


def test_half_of_the_variance_is_half_a_leak():
    assert Leak(torch.tensor([1.0, 2.0]), torch.tensor([4.0, 2.0])).r2 == 0.5
