"""InfoMin: what is seen, how it learns, what is left without puzzles."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from polygrain.methods.base import Method
from polygrain.methods.infomin import InfoMin
from polygrain.methods.mocov2 import MoCoV2
from polygrain.parts.encoder import Encoder, EncoderSettings
from polygrain.schedules import RunLength, Time
from tests.methods.views import random_views
from tests.references import make_infomin as made

RECIPES = Path(__file__).parents[2] / "src" / "polygrain" / "recipes"
NOW = Time(step=0, steps_per_epoch=10, epochs=10)
SMALL: dict[str, Any] = {"large_size": 64, "hidden": 16, "out": 8, "queue_size": 32}


def encoder() -> Encoder:
    torch.manual_seed(0)
    arguments = {"channels": (8, 8, 8, 16), "zero_init_last": False}
    return Encoder(EncoderSettings(name="resnet18_64", arguments=arguments))


def build(settings: InfoMin | MoCoV2) -> Method:
    of = encoder()
    torch.manual_seed(1)
    return settings.build(of)


def test_without_puzzles_it_is_mocov2_at_the_same_temperature_with_other_colours() -> None:
    plain, moco = build(InfoMin(jigsaw=0, **SMALL)), build(MoCoV2(temperature=0.15, **SMALL))
    views = random_views(plain.crops, 6)
    assert torch.equal(plain(views, NOW)["loss"], moco(views, NOW)["loss"])
    assert [crops.recipes for crops in plain.crops] == [("infomin",), ("infomin",)]
    with_puzzles = build(InfoMin(small_size=32, **SMALL))
    with_puzzles.remove("jigsaw")
    assert with_puzzles.weights == {"instance": 1.0}


def test_a_piece_of_the_loss_is_that_of_the_puzzles() -> None:
    method = build(InfoMin(small_size=32, jigsaw=0.25, **SMALL))
    terms = method(random_views(method.crops, 6), NOW)
    expected = 0.25 * terms["jigsaw/info_nce"] + 0.75 * terms["instance/info_nce"]
    torch.testing.assert_close(terms["loss"], expected)
    assert [(c.name, c.count, c.size) for c in method.student_sees] == [("query", 1, 64), ("pieces", 9, 32)]
    assert method.student_sees[1].recipes == ("mae",) and method.teacher_sees[0].recipes == ("infomin",)


def test_pieces_and_query_of_a_step_are_compared_with_the_keys_of_earlier_steps_only() -> None:
    method = build(InfoMin(small_size=32, **SMALL))
    queue = method.objectives["instance"].queue
    before = queue.rows.clone()
    seen = []
    for name in ("jigsaw", "instance"):
        method.objectives[name].register_forward_pre_hook(lambda *_: seen.append(torch.equal(queue.rows, before)))
    method(random_views(method.crops, 6), NOW)
    assert seen == [True, True] and not torch.equal(queue.rows, before)


def test_the_teacher_moves_after_the_step() -> None:
    method = build(InfoMin(small_size=32, momentum=0.5, **SMALL))
    teacher = method.encoder.teacher
    with torch.no_grad():
        for parameter in method.student.parameters():
            parameter.add_(1.0)
    before = [p.clone() for p in teacher.parameters()]
    method(random_views(method.crops, 4), NOW)
    assert all(torch.equal(p, b) for p, b in zip(teacher.parameters(), before, strict=True))
    method.update_teachers(NOW)
    assert all(torch.allclose(p - b, torch.tensor(0.5)) for p, b in zip(teacher.parameters(), before, strict=True))


def test_a_loss_of_puzzles_alone_is_refused() -> None:
    with pytest.raises(ValueError, match="jigsaw is 1; it must be below 1"):
        InfoMin(jigsaw=1)
    with pytest.raises(ValueError, match="leave out 'jigsaw' instead"):
        build(InfoMin(small_size=32, **SMALL)).remove("instance")


@pytest.mark.parametrize("images", [256, 512])
def test_learning_rates_are_those_of_the_authors_code_step_by_step(images: int) -> None:
    theirs = json.loads((Path(made.__file__).parent / "infomin.json").read_text())["rates"][str(images)]
    steps = made.STEPS_PER_EPOCH
    optimization = InfoMin().optimization(RunLength(images * steps, images, made.EPOCHS, steps))
    ours = [optimization.lr(Time(step, steps, made.EPOCHS)) for step in (*range(70), steps * made.EPOCHS - 1)]
    assert ours == pytest.approx(theirs, rel=1e-9)
    assert optimization.decay_all and optimization.weight_decay(NOW) == 1e-4


@pytest.mark.filterwarnings("ignore:shuffled batch norm does nothing")
@pytest.mark.parametrize("epochs", [100, 200, 800])
def test_recipes_hold_the_published_values(epochs: int) -> None:
    recipe = yaml.safe_load((RECIPES / f"infomin-resnet50-{epochs}ep.yaml").read_text())
    assert (recipe["method"], recipe["encoder"]) == ("infomin", "resnet50")
    assert (recipe["epochs"], recipe["batch_size"]) == (epochs, 256)
    assert recipe["encoder_args"] == {"zero_init_last": False}
    settings = InfoMin(**recipe["infomin"])
    assert (settings.queue_size, settings.temperature, settings.jigsaw) == (65536, 0.15, 0.5)
    with torch.device("meta"):
        method = settings.build(Encoder(EncoderSettings(name="resnet50", arguments=recipe["encoder_args"])))
    wanted = {"query": (224, (0.2, 1.0)), "pieces": (64, (0.6, 1.0)), "key": (224, (0.2, 1.0))}
    assert {c.name: (c.size, c.scale) for c in method.crops} == wanted
    shapes = [tuple(p.shape) for p in method.objectives["jigsaw"].parameters()]
    assert shapes == [(2048, 2048), (2048,), (128, 2048), (128,), (128, 9 * 128), (128,)]
    assert settings.optimization(RunLength(1281167, 256, epochs, 5004)).lr(NOW._replace(epochs=epochs)) < 0.03
