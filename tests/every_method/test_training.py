"""Every method in the real loop: what moves, what stays, what is told dead, and what a resumed run ends in."""

from pathlib import Path
from typing import Any

import pytest
import torch

from polygrain.methods import METHODS
from polygrain.parts.encoder import Encoder
from polygrain.parts.teacher import StudentTeacher
from polygrain.train.setup import Result
from polygrain.train.stops import Dead
from tests.every_method.tiny import BATCH, STEPS, begin, build, family_of, records, run, step


@pytest.fixture(scope="module", params=METHODS)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Result]:
    out = tmp_path_factory.mktemp(request.param) / "run"
    return request.param, out, run(request.param, out)


def test_every_trainable_parameter_gets_a_gradient_and_no_teacher_parameter_does(
    trained: tuple[str, Path, Result],
) -> None:
    method = trained[2].method  # with the gradients of its last step
    idle = [name for name, p in method.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert not idle
    teachers = [module.teacher for module in method.modules() if isinstance(module, StudentTeacher)]
    for teacher in teachers:
        assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())


def test_representations_do_not_collapse(trained: tuple[str, Path, Result]) -> None:
    log = records(trained[1])
    assert len(log) == STEPS  # a run with dead features would have stopped
    for gauge in ("features/pooled_spread", "features/patches_spread"):
        assert log[-1][gauge] > 0.03  # dead is 0.01 and less


def test_a_resumed_run_ends_in_the_same_state_to_the_last_bit(
    trained: tuple[str, Path, Result], tmp_path: Path
) -> None:
    name, _, whole = trained
    run(name, tmp_path / "halves", stop_after_steps=7)  # in the middle of an epoch
    resumed = run(name, tmp_path / "halves", resume=True).method.state_dict()
    wanted = whole.method.state_dict()
    assert wanted.keys() == resumed.keys()
    assert not [key for key in wanted if not torch.equal(wanted[key], resumed[key])]


def tell_nothing_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on encoders give the same for all images and places."""
    features = Encoder.features

    def alike(self: Encoder, *arguments: Any) -> Any:
        found = features(self, *arguments)
        return found._replace(
            pooled=found.pooled[:1].expand_as(found.pooled),
            patches=found.patches[:1, :1].expand_as(found.patches),
            unnormed=found.unnormed[:1].expand_as(found.unnormed),
        )

    monkeypatch.setattr(Encoder, "features", alike)


@pytest.mark.parametrize("name", METHODS)
def test_an_encoder_that_tells_no_images_apart_is_told_dead(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell_nothing_apart(monkeypatch)
    with pytest.raises(Dead, match=r"features/pooled_spread is 0"):
        run(name, tmp_path / "run")


# methods whose own objectives do not show such an encoder, so that its features alone tell, and why
SILENT: dict[str, str] = {
    "supervised": "labels judge it; it has no objective",
    "mae": "its decoder knows where each patch lies, so predictions differ by place",
}
SLOW: dict[str, int] = {  # steps until it shows, for those whose teacher's centre must first follow
    "dino": 60,
    "mst": 60,
}


@pytest.mark.parametrize("name", METHODS)
def test_its_own_objectives_know_their_dead_values_and_only_when_dead(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dead(steps: int = 1) -> dict[str, bool]:
        method = build(name, family_of(name))
        begin(method, BATCH)
        for _ in range(steps):
            terms = step(method)
        read = {key: value.detach() for key, value in (terms | method.gauges()).items()}
        return {key: value.low <= float(read[key]) <= value.high for key, value in method.dead_values().items()}

    healthy = dead()
    assert not any(healthy.values()), healthy
    tell_nothing_apart(monkeypatch)
    if name in SILENT:
        assert not any(dead().values())
    else:
        assert any(dead(SLOW.get(name, 1)).values())
