import dataclasses
import json

import numpy as np
import pytest
import torch

from polygrain.evaluate.linear import evaluate_linear, linear_probe, with_steps
from polygrain.evaluate.settings import LinearSettings
from polygrain.evaluate.settings.heads import PRESETS, HeadRecipe
from polygrain.evaluate.sweep import Learner
from polygrain.parts.encoder import Encoder, EncoderSettings
from tests.evaluate.fakes import Coloured

LABELS = np.arange(40) % 8
TINY = EncoderSettings(
    name="vit_tiny_patch16_224",
    arguments={"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 4, "num_heads": 3},
)
SMALL = {"size": 32, "workers": 0, "epochs": 2, "head_batch_size": 16}


def probe(train, train_labels, test, test_labels, rates, **changes):
    recipe = HeadRecipe(learning_rates=rates, epochs=5, head_batch_size=256)
    return linear_probe(
        {"pooled": train}, train_labels, {"pooled": test}, test_labels, classes=3, recipe=recipe, **changes
    )


def test_linear_probe_tells_colours_apart_and_reports_the_oracle_apart():
    train = Coloured(np.arange(200) % 8, seed=1)
    settings = LinearSettings(learning_rates=(0.1, 1.0, 10.0), size=16, workers=0, epochs=100)
    result = evaluate_linear("pixels", train, Coloured(LABELS, seed=2), settings)
    scores, details = result.scores["linear"], result.details
    assert scores["top1"] > 0.9
    assert scores["top1_oracle"] == max(details["test_top1"].values())
    assert scores["top1_held_out"] == max(details["held_out_top1"].values())
    assert details["held_out_top1"][str(details["learning_rate"])] == scores["top1_held_out"]
    assert json.loads(result.json())["protocol"] == "linear_sweep"


def test_test_labels_do_not_choose_the_learning_rate():
    random = torch.Generator().manual_seed(0)
    features, labels = torch.randn(100, 6, generator=random), torch.randint(3, (100,), generator=random)
    chosen = {
        probe(features[:60], labels[:60], features[60:], truth, (0.01, 1.0, 20.0)).name
        for truth in (labels[60:], torch.zeros(40, dtype=torch.long), torch.ones(40, dtype=torch.long))
    }
    assert len(chosen) == 1


def test_held_out_rows_train_nothing():
    random = torch.Generator().manual_seed(0)
    features, labels = torch.randn(50, 6, generator=random), torch.randint(3, (50,), generator=random)
    held = np.random.default_rng(0).permutation(50)[:5]
    spoilt = labels.clone()
    spoilt[held] = (spoilt[held] + 1) % 3
    first, second = (probe(features, truth, features, labels, (0.5,)) for truth in (labels, spoilt))
    assert first.tested == second.tested
    assert first.held != second.held


def test_too_few_images_to_hold_any_out_are_refused():
    with pytest.raises(ValueError, match="leaves 0 to choose"):
        probe(torch.zeros(4, 2), torch.zeros(4).long(), torch.zeros(4, 2), torch.zeros(4).long(), (1.0,))


def test_permuted_labels_give_chance():
    random = torch.Generator().manual_seed(0)
    centres = torch.randn(3, 6, generator=random)
    truth = torch.randint(3, (1200,), generator=random)
    features = centres[truth] + torch.randn(1200, 6, generator=random)
    shuffled = truth[:600][torch.randperm(600, generator=random)]
    test = torch.randint(3, (600,), generator=random)  # independent of the features
    top1 = probe(features[:600], shuffled, features[600:], test, (0.1, 1.0)).scores(0)["top1"]
    assert top1 == pytest.approx(1 / 3, abs=3 * (2 / 9 / 600) ** 0.5)


def test_a_sweep_over_readouts_equals_each_readout_alone():
    train, val = Coloured(np.arange(60) % 5, size=32), Coloured(np.arange(20) % 5, size=32, seed=1)
    encoder = Encoder(TINY)
    base = LinearSettings(learning_rates=(0.1, 3.0), **SMALL)
    readouts = ("cls1", "cls4", "mean", "cls1+mean", "cls4+mean")
    together = evaluate_linear(encoder, train, val, dataclasses.replace(base, readouts=readouts)).details
    for readout in readouts:
        alone = evaluate_linear(encoder, train, val, dataclasses.replace(base, readout=readout)).details
        for rate in ("0.1", "3.0"):
            assert together["held_out_top1"][f"{readout} {rate}"] == alone["held_out_top1"][rate]
            assert together["test_top1"][f"{readout} {rate}"] == alone["test_top1"][rate]


@pytest.mark.parametrize("settings", [TINY, EncoderSettings(name="resnet18_64")], ids=["vit", "resnet"])
def test_training_on_augmented_images_leaves_every_byte_of_the_encoder(settings):
    encoder = Encoder(settings).train()
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    train, val = Coloured(np.arange(10) % 2, size=32), Coloured(np.arange(4) % 2, size=32, seed=1)
    result = evaluate_linear(encoder, train, val, LinearSettings(preset="vicreg", **SMALL))
    assert all(torch.equal(before[name], tensor) for name, tensor in encoder.state_dict().items())
    assert encoder.training
    assert result.protocol == "linear"
    assert result.details["epochs"] == 2


def test_images_that_cannot_be_decoded_are_counted_alike_with_and_without_augmentation():
    train = Coloured(np.arange(60) % 4, seed=1, broken_at=(3, 4, 5, 30))
    val = Coloured(np.arange(20) % 4, seed=2, broken_at=(7,))
    augmented, plain = (
        evaluate_linear("pixels", train, val, LinearSettings(preset=preset, **{**SMALL, "size": 16}))
        for preset in ("vicreg", "sweep")
    )
    assert augmented.facts["data"]["images"] == 56
    assert augmented.facts["data"] == plain.facts["data"]
    assert augmented.facts["val"] == plain.facts["val"]
    told = [[note for note in result.notes if "cannot be decoded" in note] for result in (augmented, plain)]
    assert (
        told[0]
        == told[1]
        == [
            "4 training images cannot be decoded and are left out",
            "1 validation images cannot be decoded and are left out",
        ]
    )


def test_colours_are_told_apart_on_augmented_images():
    train, val = Coloured(np.arange(60) % 4, seed=1), Coloured(np.arange(40) % 4, seed=2)
    settings = LinearSettings(preset="dino_resnet", learning_rates=(1.0,), size=16, workers=0, epochs=6)
    result = evaluate_linear("pixels", train, val, settings)
    scores = result.scores["linear"]
    assert scores["top1"] > 0.9
    assert scores["top1_oracle"] >= scores["top1"]
    again = evaluate_linear("pixels", train, val, settings)
    assert result.json() == again.json()


def test_heads_trained_together_on_augmented_images_are_those_trained_alone():
    train, val = Coloured(np.arange(40) % 4, size=32), Coloured(np.arange(12) % 4, size=32, seed=1)
    encoder = Encoder(TINY)
    base = {"preset": "dinov2", **SMALL, "epochs": 1}
    together = evaluate_linear(encoder, train, val, LinearSettings(**base, readouts=("cls1", "cls4+mean")))
    alone = evaluate_linear(encoder, train, val, LinearSettings(**base, readout="cls4+mean"))
    for rate, share in alone.details["held_out_top1"].items():
        assert together.details["held_out_top1"][f"cls4+mean {rate}"] == share
    assert len(together.details["test_top1"]) == 2 * 13


def test_classifiers_that_diverge_are_not_chosen_and_said():
    train, val = Coloured(np.arange(80) % 4, seed=1), Coloured(np.arange(40) % 4, seed=2)
    base = {"size": 16, "workers": 0, "epochs": 6}
    for preset in ("sweep", "dino_resnet"):
        result = evaluate_linear(
            "pixels", train, val, LinearSettings(preset=preset, learning_rates=(1e38, 1.0), **base)
        )
        assert result.details["learning_rate"] == 1.0
        assert result.details["held_out_top1"]["1e+38"] is None
        assert any("1 of 2 classifiers diverged" in note and note.endswith(": 1e+38") for note in result.notes)
        assert json.loads(result.json())["scores"]["linear"]["top1_oracle"] > 0.5
        with pytest.raises(ValueError, match=r"all classifiers diverged \(1e\+38\); give smaller learning_rates"):
            evaluate_linear("pixels", train, val, LinearSettings(preset=preset, learning_rates=(1e38,), **base))


def test_a_readout_that_is_given_overrules_the_preset_whichever_it_is():
    assert PRESETS["mugs_b"].readouts == ("cls1+mean",)
    assert LinearSettings(preset="mugs_b").recipe().readouts == ("cls1+mean",)
    assert LinearSettings(preset="mugs_b", readout="pooled").recipe().readouts == ("pooled",)
    assert LinearSettings(preset="mugs_b", readout="mean").recipe().readouts == ("mean",)
    assert LinearSettings(preset="mugs_b", readouts=("cls1", "mean")).recipe().readouts == ("cls1", "mean")
    assert LinearSettings().recipe().readouts == ("pooled",)


def test_probes_behind_a_batch_norm_bear_another_name():
    train, val = Coloured(np.arange(40) % 4, size=16), Coloured(np.arange(12) % 4, size=16, seed=1)
    small = {**SMALL, "size": 16}
    names = [
        evaluate_linear("pixels", train, val, LinearSettings(preset=preset, warmup_epochs=0, **small)).protocol
        for preset in ("mae", "sweep_bn", "sweep")
    ]
    assert names == ["linear_bn", "linear_bn_sweep", "linear_sweep"]


def test_a_sweep_over_few_images_takes_two_thousand_steps_unless_epochs_are_given():
    sweep = LinearSettings().recipe()
    assert with_steps(sweep, 490).epochs == 1000  # 2 steps of 256 an epoch
    assert with_steps(sweep, 100_000).epochs == 100
    assert with_steps(LinearSettings(epochs=7).recipe(), 490).epochs == 7
    assert with_steps(PRESETS["dino_s"], 490).epochs == 100


def test_learning_rates_follow_the_batch_that_occurs_and_a_note_says_so(monkeypatch):
    peaks = []
    step = Learner.step
    monkeypatch.setattr(
        Learner, "step", lambda self, rows, *given: (step(self, rows, *given), peaks.append((len(rows), self._peak)))[0]
    )
    train, val = Coloured(np.arange(80) % 4, size=16), Coloured(np.arange(12) % 4, size=16, seed=1)
    settings = LinearSettings(preset="mae", size=16, workers=0, epochs=1, warmup_epochs=0)
    result = evaluate_linear("pixels", train, val, settings)
    assert peaks == [(72, pytest.approx(0.1 * 72 / 256))]
    assert "a batch has 72 images, all there are, not 16,384; learning rates follow it" in result.notes
    assert "batch 72;" in result.description


def test_a_run_of_few_steps_is_told():
    sets = Coloured([0, 1] * 20), Coloured([0, 1] * 5, seed=1)  # 36 images to train: 12 steps an epoch of batches of 3

    def told(epochs):
        settings = LinearSettings(epochs=epochs, head_batch_size=3, learning_rates=(0.1,), size=16, workers=0)
        return [note for note in evaluate_linear("pixels", *sets, settings).notes if "steps in all" in note]

    assert told(84) == []
    (note,) = told(83)
    assert note.startswith("996 steps in all")


def test_presets_hold_the_values_of_their_papers():
    peak = {name: max(recipe.learning_rates) * recipe.head_batch_size / 256 for name, recipe in PRESETS.items()}
    assert peak["dino_s"] == 0.004  # 0.001 x 1024 / 256
    assert peak["mugs_s_100ep"] == pytest.approx(0.06)
    assert peak["mugs_b"] == 0.004
    assert peak["vicreg"] == 0.02  # not scaled, at batch 256
    assert peak["mae"] == pytest.approx(6.4)
    assert len(PRESETS["mugs_l"].learning_rates) == 36
    assert len(PRESETS["dinov2"].learning_rates) * len(PRESETS["dinov2"].readouts) == 52
