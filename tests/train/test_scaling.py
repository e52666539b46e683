from pathlib import Path
from typing import Any

import pytest

from polygrain.data.scenes import Scenes
from polygrain.methods.dino import DINO
from polygrain.methods.ibot import IBOT
from polygrain.methods.mae import MAE
from polygrain.methods.mugs import Mugs
from polygrain.methods.vicreg import VICReg
from polygrain.train.resolving import resolve
from polygrain.train.scaling import Choice, Facts, choose_method, choose_run, look_at, power_of_two, table
from polygrain.train.settings import PretrainSettings

CPU = Facts(images=5000, side=64, gpu=False, cores=2)


def by_name(choices: list[Choice]) -> dict[str, Any]:
    return {choice.name: choice.value for choice in choices}


def for_mugs(facts: Facts = CPU, batch_size: int = 64, epochs: int = 80) -> dict[str, Any]:
    return by_name(choose_method(Mugs, facts, batch_size=batch_size, epochs=epochs, patch=8, small_crops=True))


def test_a_queue_holds_at_most_a_quarter_of_the_images() -> None:
    assert for_mugs()["queue_size"] == 1024  # the power of two below 5,000 / 4


def test_momentum_keeps_the_memory_of_the_paper_in_images() -> None:
    # 0.996 at 512 images; at 64 each step counts an eighth, provided the run is long enough: 80,000 steps are
    assert for_mugs(epochs=1000)["momentum"] == pytest.approx(0.996 ** (1 / 8), abs=1e-5)


def test_momentum_of_a_short_run_keeps_to_a_twenty_fifth_of_its_steps() -> None:
    steps = 30 * (5000 // 64)
    assert for_mugs(epochs=30)["momentum"] == pytest.approx(1 - 25 / steps, abs=1e-5)
    assert for_mugs(epochs=1)["momentum"] == 0.98


def test_only_hyperparameters_of_the_method_are_chosen() -> None:
    chosen = by_name(choose_method(VICReg, CPU, batch_size=64, epochs=10, patch=8, small_crops=True))
    assert "queue_size" not in chosen and "expander_width" in chosen


def test_a_warm_up_of_the_teachers_temperature_is_no_longer_than_a_tenth_of_the_run() -> None:
    def chosen(method: type, epochs: int) -> object:
        values = by_name(choose_method(method, CPU, batch_size=64, epochs=epochs, patch=8, small_crops=True))
        return values.get("teacher_temperature_epochs", "the paper's")

    assert chosen(IBOT, 80) == 8 and chosen(IBOT, 4) == 0
    assert chosen(IBOT, 300) == "the paper's"  # 30 epochs
    assert chosen(DINO, 4) == "the paper's"  # none


def test_a_decoder_on_a_cpu_is_small() -> None:
    values = by_name(choose_method(MAE, CPU, batch_size=64, epochs=80, patch=8, small_crops=True))
    assert (values["decoder_width"], values["decoder_depth"], values["decoder_heads"]) == (128, 2, 4)
    gpu = by_name(
        choose_method(
            MAE, Facts(images=5000, side=64, gpu=True, cores=2), batch_size=64, epochs=80, patch=8, small_crops=True
        )
    )
    assert "decoder_width" not in gpu


def test_crops_are_multiples_of_the_patch() -> None:
    chosen = by_name(choose_method(Mugs, CPU, batch_size=64, epochs=10, patch=6, small_crops=True))
    assert chosen["large_size"] % 6 == 0 and chosen["small_size"] % 6 == 0


def test_what_is_given_is_not_chosen() -> None:
    assert by_name(choose_run(CPU, {"encoder": "vit_mini_64", "epochs": 3})).keys() == {"batch_size"}


@pytest.mark.parametrize(("value", "wanted"), [(1024, 1024), (1023.9, 512), (3, 64), (1e9, 65536), (0, 64)])
def test_power_of_two_stays_below_the_value_and_within_bounds(value: float, wanted: int) -> None:
    assert power_of_two(value, 64, 65536) == wanted


def test_every_choice_is_printed_with_its_reason() -> None:
    lines = table([Choice("epochs", 80, "because"), Choice("batch_size", 64, "why not")]).splitlines()
    assert [line.split(maxsplit=2) for line in lines] == [["epochs", "80", "because"], ["batch_size", "64", "why not"]]


def test_facts_are_read_off_the_images() -> None:
    assert look_at(Scenes(40, size=48), gpu=False).side == 48


def test_a_named_value_wins_and_the_paper_scale_keeps_the_paper(tmp_path: Path) -> None:
    settings = PretrainSettings(data="scenes", out=str(tmp_path), encoder="vit_mini_64", epochs=1, batch_size=8)
    images = Scenes(64, size=64)
    _, resolved, choices = resolve(settings, {"mugs": {"queue_size": 77}}, images, gpu=False)
    values = resolved["mugs"]
    assert values["queue_size"] == 77 and "queue_size" not in by_name(choices) and "memory_size" in values
    paper = PretrainSettings(
        data="scenes", out=str(tmp_path), encoder="vit_mini_64", epochs=1, batch_size=8, scale="paper"
    )
    assert resolve(paper, {"mugs": {"queue_size": 77}}, images, gpu=False)[1] == {"mugs": {"queue_size": 77}}


def test_few_images_get_the_smallest_queue_and_are_told_so() -> None:
    facts = Facts(images=40, side=64, gpu=False, cores=2)
    choices = choose_method(Mugs, facts, batch_size=8, epochs=10, patch=8, small_crops=False)
    told = {choice.name: choice for choice in choices}
    assert told["queue_size"].value == told["prototypes"].value == 64
    assert told["queue_size"].reason == told["prototypes"].reason == "the smallest that is chosen, 40 images are few"
