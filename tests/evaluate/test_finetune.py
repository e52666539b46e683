import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from timm.data import Mixup
from timm.scheduler import create_scheduler

from polygrain.data.photometric import IMAGENET
from polygrain.evaluate.choosing import held_out_rows
from polygrain.evaluate.features import extract
from polygrain.evaluate.finetune import training
from polygrain.evaluate.finetune.batches import AugmentedImages, batches, seeded, steps_of_epoch
from polygrain.evaluate.finetune.classifier import build, build_optimizer, pieces
from polygrain.evaluate.finetune.protocol import evaluate_finetune
from polygrain.evaluate.finetune.training import share_of_peak
from polygrain.evaluate.knn import evaluate_knn
from polygrain.evaluate.settings import KnnSettings
from polygrain.evaluate.settings.finetune import PRESETS, FinetuneSettings
from polygrain.parts.encoder import Encoder, EncoderSettings
from polygrain.parts.finetuning import mixing
from polygrain.schedules import Time
from tests.evaluate.fakes import Coloured

TINY = EncoderSettings(
    name="vit_tiny_patch16_224",
    arguments={"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 4, "num_heads": 3},
)
SMALL = {"size": 32, "workers": 0, "train_batch_size": 16}


def sets():
    return Coloured(np.arange(80) % 4, size=32, seed=1), Coloured(np.arange(24) % 4, size=32, seed=2)


def encoder(settings=TINY):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Encoder(settings)


def test_loss_falls_colours_are_learnt_and_the_encoder_handed_in_stays_as_it_is(tmp_path):
    given = encoder()
    before = {name: tensor.clone() for name, tensor in given.state_dict().items()}
    settings = FinetuneSettings(**SMALL, epochs=4, learning_rate=0.02, warm_start=False, out=str(tmp_path / "tuned"))
    result = evaluate_finetune(given, *sets(), settings)
    losses, scores = result.details["losses"], result.scores["finetuned"]
    assert losses[-1] < 0.7 * losses[0]
    assert scores["top1"] > 0.9
    assert scores["top1_oracle"] >= scores["top1"]
    assert all(torch.equal(before[name], tensor) for name, tensor in given.state_dict().items())
    assert json.loads(result.json())["facts"]["settings"]["layer_decay"] == 0.75
    tuned = evaluate_knn(str(tmp_path / "tuned"), *sets(), KnnSettings(k=(5,), workers=0))
    assert tuned.scores["k=5"]["top1"] > 0.9
    with pytest.raises(ValueError, match="is there already"):
        evaluate_finetune(given, *sets(), settings)


def test_the_same_seed_gives_the_same_result_whatever_the_workers_and_what_was_drawn_before():
    settings = FinetuneSettings(**SMALL, preset="mugs_s", epochs=2, warmup_epochs=1)
    first = evaluate_finetune(encoder(), *sets(), settings)
    torch.rand(3), np.random.rand(3)  # noqa: NPY002
    second = evaluate_finetune(encoder(), *sets(), dataclasses.replace(settings, batch_size=16, workers=2))
    assert first.details["losses"] == second.details["losses"]
    assert first.json() == second.json()


@pytest.mark.parametrize("preset", ["vicreg_semi_1", "swav_semi_10"])
def test_a_resnet_is_fine_tuned_with_few_labels(preset):
    settings = FinetuneSettings(preset=preset, epochs=1, share=0.2, size=32, workers=0)
    train, val = Coloured(np.arange(40) % 4), Coloured(np.arange(4), seed=2)
    result = evaluate_finetune(encoder(EncoderSettings(name="resnet18")), train, val, settings)
    assert result.facts["data"]["images"] == 8
    assert result.facts["data"]["share"] == 0.2


def test_a_warm_start_scores_what_a_linear_probe_by_sklearn_does():
    train, val = Coloured(np.arange(80) % 8, size=32, seed=1), Coloured(np.arange(40) % 8, size=32, seed=2)
    given = encoder()
    settings = FinetuneSettings(**SMALL, epochs=1, warmup_epochs=0, learning_rate=1e-12)
    result = evaluate_finetune(given, train, val, settings)
    _, trains = held_out_rows(80, 0.1, seed=0)
    vectors = extract(given, train, size=32, positions=trains.tolist()).pooled
    mean = vectors.mean(0)
    scale = (vectors - mean).norm(dim=1).square().mean().sqrt()
    probe = LogisticRegression(C=10.0, max_iter=5000, tol=1e-10).fit((vectors - mean) / scale, train.labels()[trains])
    predicted = probe.predict((extract(given, val, size=32).pooled - mean) / scale)
    assert result.scores["finetuned"]["top1"] == (predicted == val.labels()).mean()


@pytest.fixture
def trained_on(monkeypatch):
    """Positions of all images that steps are taken on."""
    seen = set()

    def told(*rest):
        for pixels, positions in batches(*rest):
            seen.update(positions.tolist())
            yield pixels, positions

    monkeypatch.setattr(training, "batches", told)
    return seen


def test_nothing_stands_in_for_images_that_cannot_be_decoded_and_they_are_counted(trained_on):
    labels = np.arange(80) % 4
    labels[5] = -1  # the next image after number 4, which is broken
    fine = np.setdiff1d(np.arange(80), [4, 5, 8, 18])
    held, trains = (set(fine[rows].tolist()) for rows in held_out_rows(76, 0.1, seed=0))
    train = Coloured(labels, size=32, seed=1, broken_at=(4, 8, 18))
    val = Coloured(np.arange(24) % 4, size=32, seed=2, broken_at=(0, 1))
    result = evaluate_finetune(encoder(), train, val, FinetuneSettings(**SMALL, epochs=3, warm_start=False))
    assert trained_on <= trains
    assert not trained_on & held
    assert {
        "3 training images cannot be decoded and are left out",
        "2 validation images cannot be decoded and are left out",
    } <= set(result.notes)
    assert [result.facts[side]["images"] for side in ("data", "val")] == [76, 22]
    assert "fine-tuned on 68 images" in result.about
    cached = evaluate_knn(encoder(), train, val, KnnSettings(size=32, workers=0))
    assert [cached.facts[side] for side in ("data", "val")] == [result.facts[side] for side in ("data", "val")]


def test_with_a_share_no_image_outside_it_trains(trained_on):
    settings = FinetuneSettings(**SMALL, epochs=2, warm_start=False, share=0.25)
    names = evaluate_finetune(encoder(), *sets(), settings).details["subset"]["names"]
    chosen = {int(name.removeprefix("picture ")) for name in names}
    broken = [i for i in sorted(chosen) if i + 1 not in chosen][:5]
    trained_on.clear()
    evaluate_finetune(encoder(), Coloured(np.arange(80) % 4, size=32, seed=1, broken_at=broken), sets()[1], settings)
    assert trained_on <= chosen - {*broken}


def test_an_image_that_can_no_longer_be_decoded_leaves_an_even_batch_without_it():
    images = Coloured(np.arange(8) % 2, size=32, broken_at=(2,))
    data = AugmentedImages(images, 32, IMAGENET, PRESETS["quick"], seed=0)
    steps = [[(0, 0, i) for i in part] for part in ([0, 1, 2, 4], [5, 2], [6, 7])]
    found = [positions.tolist() for _, positions in batches(data, steps, workers=0)]
    assert found == [[0, 1], [6, 7]]  # of three and of one an even number remains


def test_small_pieces_of_a_batch_give_the_same_step():
    settings = FinetuneSettings(**SMALL, epochs=2, drop_path=0.0)
    whole, pieces = (
        evaluate_finetune(encoder(), *sets(), dataclasses.replace(settings, batch_size=size)) for size in (16, 5)
    )
    assert whole.details["losses"] == pytest.approx(pieces.details["losses"], rel=1e-5)


def test_with_batch_norm_the_images_at_once_are_part_of_the_protocol_and_never_a_single_one():
    train, val = Coloured(np.arange(20) % 2, size=32, seed=1), Coloured([0, 1], size=32, seed=2)
    resnet = encoder(EncoderSettings(name="test_resnet"))  # half a million weights
    settings = FinetuneSettings(**SMALL, preset="vicreg_semi_1", share=1.0, epochs=1)
    whole, fours, fives = (
        evaluate_finetune(resnet, train, val, dataclasses.replace(settings, batch_size=size)) for size in (99, 4, 5)
    )
    assert "batch_norm" not in whole.facts
    assert whole.details["losses"] != fours.details["losses"]
    assert whole.fingerprint != fours.fingerprint
    told = "batch norm has the statistics of 4 images at a time, not of the batch of 16"
    assert any(note.startswith(told) for note in fours.notes)
    assert fives.details["losses"] == fours.details["losses"]  # 16 images in four pieces either way
    assert fives.fingerprint == fours.fingerprint
    with pytest.raises(ValueError, match="batch_size is 1, and batch norm"):
        evaluate_finetune(resnet, train, val, dataclasses.replace(settings, batch_size=1))


@given(half=st.integers(1, 600), at_once=st.integers(2, 600))
def test_no_piece_of_an_even_batch_is_a_single_image_nor_more_than_go_at_once(half, at_once):
    sizes = [len(part) for part in torch.arange(2 * half).tensor_split(pieces(2 * half, at_once))]
    assert sum(sizes) == 2 * half
    assert min(sizes) >= 2
    assert max(sizes) <= at_once


def test_learning_rates_follow_the_batch_that_occurs_and_a_note_says_so(monkeypatch):
    groups = []
    step = training.Learning.step
    monkeypatch.setattr(
        training.Learning,
        "step",
        lambda self, *rest: (step(self, *rest), groups.append(self.optimizer.param_groups[-1]["peak"]))[0],
    )
    settings = FinetuneSettings(size=32, workers=0, preset="mugs_s", epochs=2, warmup_epochs=1)
    result = evaluate_finetune(encoder(), *sets(), settings)
    assert groups == pytest.approx([1.2e-3 * 72 / 1024] * 2)  # one step an epoch, on 80 images less a tenth
    assert "a batch has 72 images, not 1,024; learning rates follow it" in result.notes
    assert "2 epochs of batch 72" in result.description


def test_the_chosen_epoch_is_one_that_was_looked_at():
    settings = FinetuneSettings(**SMALL, epochs=3, look_every_epochs=7)
    few = Coloured(np.arange(20) % 4, size=32)
    assert evaluate_finetune(encoder(), few, few, settings).details["chosen_epoch"] == 3


def test_a_single_image_to_train_is_refused():
    pair = Coloured([0, 1], size=32)
    with pytest.raises(ValueError, match="1 image is left to train, and fine-tuning needs 2 or more"):
        evaluate_finetune(encoder(), pair, pair, FinetuneSettings(**SMALL, held_out=0.5))


def test_a_folder_that_cannot_be_written_is_refused_before_any_image_is_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(Coloured, "load", lambda *_: pytest.fail("an image was decoded"))
    (tmp_path / "file").touch()
    for out, told in (("file/tuned", "nothing can be written into .*Not a directory"), ("file", "is there already")):
        with pytest.raises(ValueError, match=told):
            evaluate_finetune(encoder(), *sets(), FinetuneSettings(**SMALL, out=str(tmp_path / out)))


def test_one_step_without_layer_decay_is_that_of_plain_adamw():
    recipe = dataclasses.replace(PRESETS["quick"], layer_decay=1.0, weight_decay=0.0, drop_path=0.0)
    torch.manual_seed(0)
    model = build(encoder(), 4, recipe, "pooled")
    twin = build(encoder(), 4, recipe, "pooled")
    twin.load_state_dict(model.state_dict())
    ours = build_optimizer(model, recipe)
    theirs = torch.optim.AdamW(twin.parameters(), lr=2e-3 * 32 / 256, weight_decay=0.0)
    pixels = torch.randn(4, 3, 32, 32)
    for net, optimizer in ((model, ours), (twin, theirs)):
        torch.nn.functional.cross_entropy(net(pixels), torch.arange(4)).backward()
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))


def test_groups_hold_every_parameter_once_and_learn_the_faster_the_deeper():
    recipe = PRESETS["mugs_s"]
    model = build(encoder(), 4, recipe, "pooled")
    groups = build_optimizer(model, recipe).param_groups
    assert sorted(id(p) for group in groups for p in group["params"]) == sorted(id(p) for p in model.parameters())
    peak = {id(p): group["peak"] for group in groups for p in group["params"]}
    layers = [model.encoder.model.patch_embed, *model.encoder.model.blocks, model.head]
    rates = [peak[id(next(layer.parameters()))] for layer in layers]
    assert rates == pytest.approx([1.2e-3 * 0.55**power for power in (5, 4, 3, 2, 1, 0)])


@pytest.mark.parametrize(("preset", "peak"), [("inat19_s", 1.125e-4), ("cifar10_s", 4.5e-6), ("mugs_semi_1", 5e-6)])
def test_learning_rates_in_the_lineage_of_deit_are_those_of_timms_scheduler_as_its_script_steps_it(preset, peak):
    """Mugs' `eval_transfer_learning.py`; the peak of the last two is below the least rate, so that rates rise."""
    recipe = PRESETS[preset]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak)
    options = {"sched": "cosine", "warmup_epochs": 5, "warmup_lr": 1e-6, "min_lr": 1e-5, "cooldown_epochs": 10}
    scheduler, _ = create_scheduler(SimpleNamespace(**options, epochs=recipe.epochs), optimizer)
    for epoch in range(recipe.epochs):
        rate = optimizer.param_groups[0]["lr"]
        for step in (0, 2):
            ours = share_of_peak(recipe, Time(3 * epoch + step, 3, recipe.epochs)) * peak
            assert ours == pytest.approx(rate, rel=1e-9)
        scheduler.step(epoch)


def test_learning_rates_follow_beit_by_step_vicreg_by_epoch_and_swav_in_steps():
    steps, epochs = 10, 200
    mugs = PRESETS["mugs_s"]
    assert share_of_peak(mugs, Time(20 * steps, steps, epochs)) == pytest.approx(1.0)
    middle = share_of_peak(mugs, Time(110 * steps, steps, epochs)) * 1.2e-3
    assert middle == pytest.approx((1.2e-3 + 1e-6) / 2)
    vicreg = [share_of_peak(PRESETS["vicreg_semi_1"], Time(50 + step, steps, 20)) for step in (0, 9)]
    assert vicreg == pytest.approx([0.5 * (1 + np.cos(np.pi * 5 / 20))] * 2)
    swav = [share_of_peak(PRESETS["swav_semi_1"], Time(epoch * steps, steps, 20)) for epoch in (0, 11, 12, 15, 16)]
    assert swav == pytest.approx([1, 1, 0.2, 0.2, 0.04])


def test_mixed_labels_sum_to_one_and_pixels_are_blended_with_the_reversed_batch():
    pixels, labels = torch.randn(8, 3, 4, 4), torch.arange(8) % 4
    with seeded(1):
        mixed, shares = mixing(4, mixup=0.8, cutmix=0.0, smoothing=0.1)(pixels.clone(), labels)
    torch.testing.assert_close(shares.sum(1), torch.ones(8))
    share = ((mixed - pixels.flip(0)) / (pixels - pixels.flip(0))).mean()
    torch.testing.assert_close(mixed, share * pixels + (1 - share) * pixels.flip(0), atol=1e-4, rtol=1e-4)
    plain, smoothed = mixing(4, mixup=0.0, cutmix=0.0, smoothing=0.1)(pixels.clone(), labels)
    assert torch.equal(plain, pixels)
    torch.testing.assert_close(smoothed[0], torch.tensor([0.925, 0.025, 0.025, 0.025]))
    assert Mixup(0.8, 1.0).mixup_enabled


def test_an_image_is_augmented_alike_whatever_came_before_and_anew_in_each_epoch():
    recipe = dataclasses.replace(PRESETS["mugs_s"])
    data = AugmentedImages(Coloured([0, 1, 2], size=32), 32, IMAGENET, recipe, seed=0)
    first = data[(0, 0, 1)][0]
    state = torch.get_rng_state()
    data[(0, 0, 2)]
    assert torch.equal(data[(0, 0, 1)][0], first)
    assert not torch.equal(data[(1, 0, 1)][0], first)
    assert not torch.equal(data[(0, 1, 1)][0], first)
    assert torch.equal(torch.get_rng_state(), state)


def test_an_epoch_holds_whole_even_batches_and_repeats_leave_it_as_long():
    positions = np.arange(50)
    steps = steps_of_epoch(positions, dataclasses.replace(PRESETS["quick"], train_batch_size=16), 0, 0)
    assert [len(step) for step in steps] == [16, 16, 16]
    assert len({key[2] for step in steps for key in step}) == 48
    (few,) = steps_of_epoch(positions[:7], PRESETS["quick"], 0, 0)
    assert len(few) == 6
    repeated = steps_of_epoch(positions, dataclasses.replace(PRESETS["cifar10_s"], train_batch_size=24), 0, 0)
    counts = np.bincount([key[2] for step in repeated for key in step])
    assert sorted(counts[counts > 0].tolist()) == [3] * 16
    assert len({key for step in repeated for key in step}) == 48


def test_published_learning_rates_come_out_at_published_batches():
    rates = {name: recipe.learning_rate * recipe.train_batch_size / 256 for name, recipe in PRESETS.items()}
    assert rates["mugs_s"] == rates["mugs_b"] == pytest.approx(1.2e-3)
    assert rates["mugs_l"] == pytest.approx(8e-4)
    assert rates["mugs_semi_1"] == pytest.approx(5e-6 * 512 / 512)
    assert rates["cars_b"] == pytest.approx(1.5e-4 * 768 / 512)
    assert rates["inat18_b"] == pytest.approx(1.5e-5 * 768 / 512)
    assert rates["vicreg_semi_1"] == 0.03


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"preset": "mugs"}, "did you mean mugs_s"),
        ({"epochs": 0}, "epochs is 0"),
        ({"preset": "mugs_s", "epochs": 20}, "epochs is 20, and preset mugs_s rises to its learning rate in 20"),
        ({"preset": "cars_b", "epochs": 6}, "epochs is 6, and preset cars_b rises to its learning rate in 6"),
        ({"warmup_epochs": -1}, "warmup_epochs is -1"),
        ({"learning_rate": float("inf")}, "learning_rate is inf"),
        ({"mixup": float("nan")}, "mixup is nan"),
        ({"train_batch_size": 1}, "train_batch_size is 1"),
        ({"layer_decay": 1.5}, "layer_decay is 1.5"),
        ({"drop_path": 1.0}, "drop_path is 1.0"),
        ({"mixup": -1.0}, "mixup is -1.0"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"share": 2.0}, "share is 2.0"),
        ({"preset": "mugs_semi_1", "warm_start": True}, "hidden layer in its head"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        FinetuneSettings(**changes)


def test_raw_pixels_cannot_be_fine_tuned():
    with pytest.raises(ValueError, match="raw pixels have no weights"):
        evaluate_finetune("pixels", *sets(), FinetuneSettings(size=32))
