import dataclasses
import json

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from timm.data import Mixup

from polygrain.data.photometric import IMAGENET
from polygrain.evaluate.choosing import held_out_rows
from polygrain.evaluate.features import extract
from polygrain.evaluate.finetune.batches import AugmentedImages, seeded, steps_of_epoch
from polygrain.evaluate.finetune.classifier import build, build_optimizer
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
    settings = FinetuneSettings(**SMALL, preset="mugs_s", epochs=1)
    first = evaluate_finetune(encoder(), *sets(), settings)
    torch.rand(3), np.random.rand(3)  # noqa: NPY002
    second = evaluate_finetune(encoder(), *sets(), dataclasses.replace(settings, batch_size=16))
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
    settings = FinetuneSettings(**SMALL, epochs=1, learning_rate=1e-12)
    result = evaluate_finetune(given, train, val, settings)
    _, trains = held_out_rows(80, 0.1, seed=0)
    vectors = extract(given, train, size=32, positions=trains.tolist()).pooled
    mean = vectors.mean(0)
    scale = (vectors - mean).norm(dim=1).square().mean().sqrt()
    probe = LogisticRegression(C=10.0, max_iter=5000, tol=1e-10).fit((vectors - mean) / scale, train.labels()[trains])
    predicted = probe.predict((extract(given, val, size=32).pooled - mean) / scale)
    assert result.scores["finetuned"]["top1"] == (predicted == val.labels()).mean()


def test_small_pieces_of_a_batch_give_the_same_step():
    settings = FinetuneSettings(**SMALL, epochs=1, drop_path=0.0)
    whole, pieces = (
        evaluate_finetune(encoder(), *sets(), dataclasses.replace(settings, batch_size=size)) for size in (16, 5)
    )
    assert whole.details["losses"] == pytest.approx(pieces.details["losses"], rel=1e-5)


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


def test_learning_rates_follow_beit_by_step_and_deit_by_epoch():
    steps, epochs = 10, 200
    mugs = PRESETS["mugs_s"]
    assert share_of_peak(mugs, Time(20 * steps, steps, epochs)) == pytest.approx(1.0)
    middle = share_of_peak(mugs, Time(110 * steps, steps, epochs)) * 1.2e-3
    assert middle == pytest.approx((1.2e-3 + 1e-6) / 2)
    cifar = PRESETS["cifar10_s"]
    peak = 3e-6 * 768 / 512
    last = share_of_peak(cifar, Time(999 * steps + 9, steps, 1000)) * peak
    assert last == pytest.approx(1e-5, rel=1e-3)  # above the peak: rates rise
    assert share_of_peak(cifar, Time(500 * steps, steps, 1000)) == share_of_peak(
        cifar, Time(500 * steps + 9, steps, 1000)
    )
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
