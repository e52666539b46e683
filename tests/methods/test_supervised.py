"""Supervised baselines, and the one door that labels pass."""

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from timm.data.mixup import mixup_target
from torch import Tensor

from polygrain.data.scenes import FINE, Scenes
from polygrain.methods import METHODS
from polygrain.methods.base import Method
from polygrain.methods.supervised import Supervised, tenth_every
from polygrain.objectives.base import Objective
from polygrain.parts.encoder import Encoder, EncoderSettings
from polygrain.parts.label_mixing import LabelMixing
from polygrain.schedules import RunLength, Time
from polygrain.train.settings import PretrainSettings
from polygrain.train.setup import pretrain
from polygrain.views import Encoding, View
from tests.methods.views import random_views

NOW = Time(step=30, steps_per_epoch=10, epochs=10)
ARGUMENTS = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2}
LABELS = torch.tensor([2, 0, 1, 1])


def build(**settings: Any) -> Method:
    torch.manual_seed(0)
    encoder = Encoder(EncoderSettings(name="vit_small_patch16_224", arguments=ARGUMENTS))
    return Supervised(classes=3, large_size=32, **settings).build(encoder).train()


def logits(method: Any, view: View) -> Tensor:
    found: Tensor = method.classifier(method.student(view).pooled)
    return found


def test_without_mixing_and_smoothing_the_loss_is_cross_entropy() -> None:
    method = build(mixup=0.0, cutmix=0.0, smoothing=0.0)
    views = random_views(method.crops, 4)
    by_hand = -logits(method, views["large"][0]).log_softmax(1)[torch.arange(4), LABELS].mean()
    torch.testing.assert_close(method(views, NOW, LABELS)["loss"], by_hand)


def test_smoothing_spreads_labels_as_in_timm() -> None:
    method = build(mixup=0.0, cutmix=0.0, smoothing=0.1)
    views = random_views(method.crops, 4)
    targets = mixup_target(LABELS, 3, lam=1.0, smoothing=0.1)
    by_hand = -(targets * logits(method, views["large"][0]).log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(method(views, NOW, LABELS)["loss"], by_hand)


@pytest.mark.parametrize("alphas", [{"mixup": 0.8, "cutmix": 0.0}, {"mixup": 0.0, "cutmix": 1.0}])
def test_labels_are_blended_by_the_share_of_pixels_that_images_keep(alphas: dict[str, float]) -> None:
    torch.manual_seed(3)
    pixels = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 3, 32, 32)  # each image has one value
    mixed, shares = LabelMixing(**alphas, classes=4)(pixels, torch.arange(4))
    assert 0.02 < float(shares[0, 0]) < 0.98
    torch.testing.assert_close(shares.sum(1), torch.ones(4))
    torch.testing.assert_close(mixed.mean((1, 2, 3)), shares @ torch.arange(4.0))


def test_mixing_leaves_evaluation_alone() -> None:
    mixing = LabelMixing(mixup=0.8, cutmix=1.0, classes=3).eval()
    pixels = torch.randn(4, 3, 8, 8)
    mixed, shares = mixing(pixels, LABELS)
    assert torch.equal(mixed, pixels) and torch.equal(shares, F.one_hot(LABELS, 3).float())


def test_rates_fall_to_a_tenth_every_thirty_epochs_and_warm_up_in_deit() -> None:
    lr = tenth_every(0.1, 30)
    assert [lr(Time(epoch * 5, 5, 90)) for epoch in (0, 29, 30, 89)] == pytest.approx([0.1, 0.1, 0.01, 0.001])
    deit = Supervised().optimization(RunLength(1_281_167, 1024, 300, 1251))
    assert deit.lr(Time(0, 1251, 300)) == pytest.approx(1e-6)
    assert max(deit.lr(Time(e * 1251, 1251, 300)) for e in range(10)) == pytest.approx(1e-3)  # 5e-4 for 512
    assert Supervised(optimizer="sgd").optimization(RunLength(1000, 256, 90, 3)).decay_all


# --- the door


def test_labels_reach_the_supervised_method_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    forward = Method.forward

    def recorded(self: Method, *arguments: Any, **named: Any) -> dict[str, Tensor]:
        seen.append((len(arguments), named))
        return forward(self, *arguments, **named)

    monkeypatch.setattr(Method, "forward", recorded)
    run(tmp_path / "vicreg", "vicreg", {"large_size": 32, "expander_width": 16})
    assert seen == [(2, {})] * 3  # views and time, though the images have labels


def test_no_objective_and_nothing_that_travels_has_a_place_for_labels() -> None:
    def kinds(kind: type) -> list[type]:
        return [kind, *(deeper for child in kind.__subclasses__() for deeper in kinds(child))]

    for objective in kinds(Objective):
        assert [*inspect.signature(objective.forward).parameters] == ["self", "student", "teacher", "time"]
    assert not {"label", "labels", "target", "targets"} & {*View._fields, *Encoding._fields}
    needing = [name for name in METHODS if "classes" in METHODS[name].__dataclass_fields__]  # type: ignore[attr-defined]
    assert needing == ["supervised"] and Method.needs_labels is False
    assert [kind.__name__ for kind in kinds(Method) if kind.needs_labels] == ["LabelledMethod"]


def run(out: Path, method: str, options: dict[str, Any], images: Any = None) -> Any:
    settings = PretrainSettings(
        data="scenes", out=str(out), method=method, encoder="vit_tiny_64", epochs=1, batch_size=8, workers=0, threads=1,
        encoder_args=ARGUMENTS, scale="paper", probe_every_epochs=0, stop_after_steps=3, log_every=1,
    )  # fmt: skip
    return pretrain(settings, options, None, Scenes(24, size=40) if images is None else images)


def test_it_trains_on_labelled_images_and_counts_their_classes(tmp_path: Path) -> None:
    result = run(tmp_path / "run", "supervised", {"large_size": 32})
    assert result.method.classifier.weight.shape == (len(FINE), 32) and "classes/cross_entropy" in result.record


def test_images_without_labels_are_refused_in_one_line(tmp_path: Path) -> None:
    class Unlabelled(Scenes):
        def labels(self) -> None:  # type: ignore[override]
            return None

    with pytest.raises(ValueError, match="supervised learns from labels; 24 of 24 images have none"):
        run(tmp_path / "a", "supervised", {"large_size": 32}, Unlabelled(24, size=40))
    with pytest.raises(ValueError, match=r"classes is 2; the labels of these images go up to \d+"):
        run(tmp_path / "b", "supervised", {"large_size": 32, "classes": 2})


def test_nothing_can_be_added_to_it() -> None:
    with pytest.raises(ValueError, match="cannot add 'local': supervised training sees one view"):
        build().add("local", torch.nn.Identity())  # type: ignore[arg-type]
