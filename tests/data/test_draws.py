import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.stats import chisquare, kstest, norm

from polygrain.data.draws import Draws, Key, draw, noise
from polygrain.data.randaugment import OPERATIONS
from polygrain.data.recipes import RECIPES
from polygrain.views import Crops

LARGE = Crops(
    name="student",
    count=2,
    size=224,
    scale=(0.25, 1.0),
    recipes=("dino_1", "dino_2"),
    strong_recipe="mugs_strong",
    strong_probability=0.5,
    strong_together=True,
)
SMALL = Crops(
    name="small",
    count=6,
    size=96,
    scale=(0.05, 0.25),
    recipes=("dino_local",),
    strong_recipe="mugs_strong",
    strong_probability=0.5,
)


def plain(recipe: str, count: int = 4000) -> Draws:
    request = Crops(name="plain", count=count, size=96, scale=(0.25, 1.0), recipes=(recipe,))
    return draw([request], 375, 500, seed=0, epoch=0, image=0)


def same(a: Draws, b: Draws, rows: slice = slice(None), of: slice = slice(None)) -> bool:
    return all(np.array_equal(x[rows], y[of]) for x, y in zip(a.numbers, b.numbers, strict=True))


def is_rate(flags: np.ndarray, rate: float) -> bool:
    """Within four standard deviations."""
    return abs(flags.mean() - rate) <= 4 * np.sqrt(rate * (1 - rate) / flags.size)


def test_an_image_gets_the_same_numbers_in_whatever_order_they_are_drawn() -> None:
    def one(image: int) -> Draws:
        return draw([LARGE, SMALL], 375, 500, seed=3, epoch=1, image=image)

    forwards = [one(i) for i in range(5)]
    backwards = [one(i) for i in reversed(range(5))][::-1]
    assert all(same(a, b) for a, b in zip(forwards, backwards, strict=True))


@pytest.mark.parametrize("other", [{"seed": 4}, {"epoch": 2}, {"image": 8}])
def test_numbers_change_with_seed_epoch_and_image(other: dict[str, int]) -> None:
    key: dict[str, Any] = {"seed": 3, "epoch": 1, "image": 7}
    a, b = draw([SMALL], 375, 500, **key), draw([SMALL], 375, 500, **(key | other))
    assert not np.array_equal(a.numbers.box, b.numbers.box)
    assert not np.array_equal(a.numbers.jitter, b.numbers.jitter)


def test_numbers_of_a_request_depend_neither_on_other_requests_nor_on_how_many_crops_follow() -> None:
    key: dict[str, Any] = {"seed": 0, "epoch": 0, "image": 5}
    both = draw([LARGE, SMALL], 300, 400, **key)
    alone = draw([SMALL], 300, 400, **key)
    fewer = draw([Crops(**{**vars(SMALL), "count": 3})], 300, 400, **key)
    assert same(both, alone, slice(2, None))
    assert same(alone, fewer, slice(0, 3))


def test_the_numbers_of_a_seed_stay_what_they_were() -> None:
    # computed once; a change here changes the views of every run that is resumed
    numbers = draw([LARGE], 375, 500, seed=0, epoch=0, image=0).numbers
    assert numbers.box.tolist() == [[126, 234, 221, 253], [97, 75, 252, 319]]
    jitter = [0.8755293743560094, 0.7994525544496675, 1.1266991033716296, 0.08808234739414844]
    np.testing.assert_allclose(numbers.jitter[0], jitter, rtol=1e-12)


def test_one_draw_makes_both_large_crops_strong_and_each_small_crop_has_its_own() -> None:
    strong = np.array(
        [draw([LARGE, SMALL], 375, 500, seed=0, epoch=0, image=i).numbers.strong for i in range(1000)]
    )  # (images, 2 + 6)
    assert (strong[:, 0] == strong[:, 1]).all()
    assert is_rate(strong[:, 0], 0.5)
    assert is_rate(strong[:, 2:], 0.5)
    agreement = (strong[:, None, 2:] == strong[:, 2:, None]).mean(0)  # (6, 6)
    assert np.abs(agreement[~np.eye(6, dtype=bool)] - 0.5).max() < 4 * 0.5 / np.sqrt(1000)
    assert np.abs((strong[:, :1] == strong[:, 2:]).mean(0) - 0.5).max() < 4 * 0.5 / np.sqrt(1000)


@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_each_change_happens_as_often_as_its_recipe_says(recipe: str) -> None:
    numbers, said = plain(recipe).numbers, RECIPES[recipe]
    assert is_rate(numbers.flipped, 0.5)
    assert is_rate(numbers.jittered, said.jitter_probability)
    assert is_rate(numbers.gray, said.gray_probability)
    assert is_rate(numbers.blur > 0, said.blur_probability)
    assert is_rate(numbers.solarised, said.solarise_probability)
    assert is_rate(numbers.erased[:, 2] > 0, said.erase_probability)
    assert is_rate(numbers.operations >= 0, 0.5 if said.rand_augment else 0.0)
    assert not numbers.strong.any()


@pytest.mark.parametrize(
    ("pick", "low", "high"),
    [
        (lambda n: n.jitter[:, 0], 0.6, 1.4),
        (lambda n: n.jitter[:, 1], 0.6, 1.4),
        (lambda n: n.jitter[:, 2], 0.8, 1.2),
        (lambda n: n.jitter[:, 3], -0.1, 0.1),
        (lambda n: n.blur, 0.1, 2.0),
    ],
)
def test_strengths_are_uniform_over_the_range_of_the_recipe(
    pick: Callable[[Any], np.ndarray], low: float, high: float
) -> None:
    assert kstest(pick(plain("byol_a").numbers), "uniform", (low, high - low)).pvalue > 1e-3


def test_every_order_of_the_jitter_is_as_likely() -> None:
    orders = [tuple(order) for order in plain("byol_a").numbers.jitter_order.tolist()]
    counts = [orders.count(order) for order in itertools.permutations(range(4))]
    assert sum(counts) == len(orders)
    assert chisquare(counts).pvalue > 1e-3


def test_randaugment_draws_two_different_operations_each_as_likely() -> None:
    operations = plain("mugs_strong", 12_000).numbers.operations
    both = operations[(operations >= 0).all(1)]
    assert is_rate((operations >= 0).all(1), 0.25)
    assert (both[:, 0] != both[:, 1]).all()
    for place in (0, 1):
        chosen = operations[operations[:, place] >= 0, place]
        assert chisquare(np.bincount(chosen, minlength=len(OPERATIONS))).pvalue > 1e-3
    pairs = np.bincount(both[:, 0] * 15 + both[:, 1], minlength=225).reshape(15, 15)
    assert chisquare(pairs[~np.eye(15, dtype=bool)]).pvalue > 1e-3


def test_magnitudes_are_normal_about_nine_cut_at_ten_with_either_sign() -> None:
    numbers = plain("mugs_strong").numbers
    magnitudes = np.abs(numbers.magnitudes).ravel()
    assert is_rate(magnitudes == 10, 1 - norm.cdf(2))
    below = magnitudes[magnitudes < 10]
    assert kstest(below, lambda x: norm.cdf(x, 9, 0.5) / norm.cdf(2)).pvalue > 1e-3
    assert is_rate(numbers.magnitudes < 0, 0.5)
    assert is_rate(numbers.bicubic, 0.5)


def test_noise_is_standard_normal_and_another_for_each_crop_and_image() -> None:
    key = Key(seed=0, epoch=0, image=0)
    first = noise(key, "small", 0, (3, 60, 60))
    assert kstest(first.ravel(), "norm").pvalue > 1e-3
    others = [noise(key, "small", 1, (3, 60, 60)), noise(key._replace(image=1), "small", 0, (3, 60, 60))]
    for other in others:
        assert abs(np.corrcoef(first.ravel(), other.ravel())[0, 1]) < 0.04
    assert np.array_equal(first, noise(key, "small", 0, (3, 60, 60)))


def test_an_unknown_recipe_is_named_with_the_nearest_one() -> None:
    request = Crops(name="a", count=1, size=32, scale=(0.2, 1), recipes=("byol_c",))
    with pytest.raises(ValueError, match=r"unknown photometric recipe 'byol_c'; did you mean 'byol_[ab]'\?"):
        draw([request], 10, 10, seed=0, epoch=0, image=0)


def test_the_sigma_of_blurs_scales_with_the_request() -> None:
    request = Crops(name="large", count=2, size=64, scale=(0.2, 1.0), recipes=("byol_a",))
    halved = dataclasses.replace(request, blur_scale=0.5)
    for image in range(20):
        whole, half = (draw([r], 80, 90, seed=0, epoch=0, image=image).numbers.blur for r in (request, halved))
        np.testing.assert_allclose(half, whole / 2)
        assert (whole >= 0.1).all()
