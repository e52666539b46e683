"""Schedules against the numbers of the official logs, and against closed forms."""

import math

import pytest

from polygrain.methods.mugs import Mugs
from polygrain.schedules import (
    RunLength,
    Time,
    constant,
    cosine,
    ramp_by_epoch,
    warmup_cosine,
    warmup_cosine_by_images,
)


def values(schedule, steps_per_epoch: int, epochs: int, of: range | None = None) -> list[float]:
    steps = range(steps_per_epoch * epochs) if of is None else of
    return [schedule(Time(step, steps_per_epoch, epochs)) for step in steps]


def mean_of_epoch(schedule, epoch: int, steps_per_epoch: int, epochs: int) -> float:
    steps = range(epoch * steps_per_epoch, (epoch + 1) * steps_per_epoch)
    return math.fsum(values(schedule, steps_per_epoch, epochs, steps)) / steps_per_epoch


def test_mugs_reproduces_the_first_epoch_of_the_official_log() -> None:
    length = RunLength(images=1281167, batch_size=512, epochs=100, steps_per_epoch=2502)
    optimization = Mugs().optimization(length)
    # epoch 0 of ViT-S/16, 100 epochs: lr 7.997122187e-5, weight decay 0.0400131509
    assert mean_of_epoch(optimization.lr, 0, 2502, 100) == pytest.approx(7.997122187e-5, rel=1e-9)
    assert mean_of_epoch(optimization.weight_decay, 0, 2502, 100) == pytest.approx(0.0400131509, rel=2e-9)


def test_peak_learning_rates_of_the_official_recipes() -> None:
    for batch_size, base_lr, peak in (
        (512, 8e-4, 1.6e-3),
        (1024, 8e-4, 3.2e-3),
        (1008, 8e-4, 3.15e-3),
        (640, 1.5e-3, 3.75e-3),
    ):
        length = RunLength(images=1281167, batch_size=batch_size, epochs=100, steps_per_epoch=10)
        lr = Mugs(base_lr=base_lr).optimization(length).lr
        assert max(values(lr, 10, 100)) == pytest.approx(peak, rel=1e-12)


def test_warm_up_reaches_the_peak_where_the_cosine_starts_at_it() -> None:
    lr = values(warmup_cosine(2.0, 0.5, 1), 5, 3)
    assert lr[:6] == pytest.approx([0, 0.5, 1.0, 1.5, 2.0, 2.0])
    cosine_part = [0.5 + 0.75 * (1 + math.cos(math.pi * i / 10)) for i in range(10)]
    assert lr[5:] == pytest.approx(cosine_part)
    assert lr[-1] > 0.5


def test_the_teachers_momentum_is_half_way_to_one_at_half_time() -> None:
    momentum = cosine(0.996, 1.0)
    assert momentum(Time(0, 10, 10)) == pytest.approx(0.996)
    assert momentum(Time(50, 10, 10)) == pytest.approx(0.998)
    assert momentum(Time(100, 10, 10)) == 1.0


def test_the_teachers_temperature_rises_by_epoch_with_both_ends_included() -> None:
    ramp = ramp_by_epoch(0.04, 0.07, 4)
    by_epoch = [ramp(Time(10 * epoch + 9, 10, 6)) for epoch in range(6)]
    assert by_epoch == pytest.approx([0.04, 0.05, 0.06, 0.07, 0.07, 0.07])
    assert ramp_by_epoch(0.04, 0.07, 0)(Time(0, 10, 6)) == 0.07


def test_the_clip_of_vit_l_tightens_after_epoch_one_hundred() -> None:
    length = RunLength(images=100, batch_size=10, epochs=250, steps_per_epoch=10)
    clip = Mugs(clip=3.0, late_clip=0.3).optimization(length).clip
    assert clip is not None
    assert [clip(Time(10 * epoch, 10, 250)) for epoch in (0, 100, 101, 249)] == [3.0, 3.0, 0.3, 0.3]
    unchanged = Mugs().optimization(length).clip
    assert unchanged is not None and unchanged(Time(2000, 10, 250)) == 3.0


def test_steps_counted_in_images_do_not_depend_on_the_steps_of_an_epoch() -> None:
    length = RunLength(images=105, batch_size=10, epochs=4, steps_per_epoch=10)  # 42 steps of images, 40 real ones
    lr = warmup_cosine_by_images(1.0, 0.1, 2, length)
    assert lr(Time(0, 10, 4)) == 0 and lr(Time(20, 10, 4)) == pytest.approx(20 / 21)
    assert lr(Time(21, 10, 4)) == 1.0
    share = 0.5 * (1 + math.cos(math.pi * 18 / 21))
    assert lr(Time(39, 10, 4)) == pytest.approx(share + 0.1 * (1 - share))


def test_a_constant_is_constant() -> None:
    assert values(constant(0.3), 2, 2) == [0.3] * 4
