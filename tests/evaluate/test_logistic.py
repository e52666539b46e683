import hashlib
import warnings

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, RidgeClassifier

from polygrain.evaluate.few_shot import evaluate_few_shot, over_draws, predict
from polygrain.evaluate.logistic import STRENGTHS, evaluate_logistic
from polygrain.evaluate.regression import fit_logistic, fit_ridge
from polygrain.evaluate.settings import FewShotSettings, LogisticSettings
from polygrain.evaluate.subsets import Choice, choose, stratified
from tests.evaluate.fakes import Coloured

LABELS = np.arange(80) % 8


def cloud(n=1000, dim=20, classes=5, noise=1.5, seed=0):
    random = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, dim, generator=torch.Generator().manual_seed(9))
    labels = torch.randint(classes, (n,), generator=random)
    return centres[labels] + noise * torch.randn(n, dim, generator=random), labels


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("strength", [0.01, 1.0, 30.0])
def test_logistic_regression_equals_that_of_sklearn(intercept, strength):
    features, labels = cloud()
    ours = fit_logistic(features, labels, strength=strength, intercept=intercept)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = LogisticRegression(C=1 / strength, fit_intercept=intercept, tol=1e-10, max_iter=5000)
        theirs.fit(features.double().numpy(), labels.numpy())
    assert np.abs(ours.weight.numpy() - theirs.coef_).max() < 1e-3
    new, _ = cloud(seed=1)
    assert ours.ranked(new)[:, 0].tolist() == theirs.predict(new.double().numpy()).tolist()


@pytest.mark.parametrize(("intercept", "strength"), [(True, 1e-3), (False, 1e-4)])
def test_an_offset_that_all_features_share_does_not_keep_the_solver_from_the_optimum(intercept, strength):
    features, labels = cloud(400, noise=2.0)
    features = features + 100 * torch.nn.functional.normalize(torch.arange(1.0, 21), dim=0)
    if not intercept:
        features = torch.nn.functional.normalize(features, dim=1)
    ours = fit_logistic(features, labels, strength=strength, intercept=intercept)
    theirs = LogisticRegression(C=1 / strength, fit_intercept=intercept, solver="newton-cholesky", tol=1e-12)
    theirs.fit(features.double().numpy(), labels.numpy())
    assert np.abs(ours.weight.numpy() - theirs.coef_).max() < 1e-3
    assert ours.ranked(features)[:, 0].tolist() == theirs.predict(features.double().numpy()).tolist()
    assert ours.solved


def test_a_classifier_short_of_its_optimum_is_said(monkeypatch):
    monkeypatch.setattr("polygrain.evaluate.regression.MOST_ITERATIONS", 2)
    settings = LogisticSettings(size=16, workers=0, strengths=(0.001, 0.01, 1e9))
    notes = evaluate_logistic("pixels", Coloured(LABELS, seed=1), Coloured(LABELS, seed=2), settings).notes
    assert any(note.startswith("2 strengths (0.001 to 0.01) not solved to the optimum") for note in notes)


def test_the_gradient_vanishes_at_the_optimum():
    features, labels = cloud(300)
    found = fit_logistic(features, labels, strength=0.1, intercept=True)
    weight, bias = found.weight.clone().requires_grad_(), found.bias.clone().requires_grad_()
    logits = features.double() @ weight.T + bias
    loss = torch.nn.functional.cross_entropy(logits, labels) + 0.1 * weight.square().sum() / 2 / 300
    gradients = torch.autograd.grad(loss, [weight, bias])
    assert max(gradient.abs().max() for gradient in gradients) < 1e-6


def test_an_endless_penalty_predicts_the_largest_class():
    features, labels = cloud()
    found = fit_logistic(features, labels, strength=1e9, intercept=True)
    assert (found.ranked(features)[:, 0] == labels.bincount().argmax()).all()


def test_the_order_of_images_and_a_warm_start_change_nothing():
    features, labels = cloud(400)
    order = torch.randperm(400, generator=torch.Generator().manual_seed(0))
    straight = fit_logistic(features, labels, strength=0.3, intercept=True)
    shuffled = fit_logistic(features[order], labels[order], strength=0.3, intercept=True)
    warm = fit_logistic(
        features, labels, strength=0.3, intercept=True, start=straight._replace(weight=straight.weight + 1)
    )
    torch.testing.assert_close(straight.weight, shuffled.weight, atol=1e-4, rtol=0)
    torch.testing.assert_close(straight.weight, warm.weight, atol=1e-4, rtol=0)


def test_classes_that_do_not_occur_are_never_predicted():
    features, labels = cloud(300)
    found = fit_logistic(features[labels != 2], labels[labels != 2], strength=0.1, intercept=True)
    assert found.classes.tolist() == [0, 1, 3, 4]
    assert not (found.ranked(features, 1) == 2).any()


@pytest.mark.parametrize("strength", [0.1, 10.0])
def test_ridge_equals_that_of_sklearn(strength):
    features, labels = cloud()
    (_, ours) = fit_ridge(features, labels, (1.0, strength))
    theirs = RidgeClassifier(alpha=strength).fit(features.double().numpy(), labels.numpy())
    np.testing.assert_allclose(ours.weight, theirs.coef_, atol=1e-9)
    np.testing.assert_allclose(ours.bias, theirs.intercept_, atol=1e-9)


@pytest.mark.parametrize("form", ["mugs", "ibot", "ridge", "dinov2"])
def test_colours_are_told_apart_and_the_choice_is_held_out(form):
    settings = LogisticSettings(form=form, size=16, workers=0, strengths=(0.1, 1.0) if form == "dinov2" else None)
    result = evaluate_logistic("pixels", Coloured(LABELS, seed=1), Coloured(LABELS, seed=2), settings)
    scores = result.scores[form]
    assert scores["top1"] > 0.9
    assert ("top1_oracle" in scores) == (form != "dinov2")
    assert scores["top1_held_out"] == max(result.details["held_out_top1"].values())


def test_one_hot_features_are_always_right_and_permuted_labels_give_chance():
    labels = torch.arange(600) % 4
    perfect = torch.nn.functional.one_hot(labels).float()
    found = fit_logistic(perfect, labels, strength=0.1, intercept=False)
    assert (found.ranked(perfect)[:, 0] == labels).all()
    random = torch.Generator().manual_seed(0)
    noise = torch.randn(1200, 10, generator=random)
    shuffled, truth = torch.randint(4, (2, 600), generator=random)
    lost = fit_logistic(noise[:600], shuffled, strength=0.1, intercept=False).ranked(noise[600:])[:, 0]
    assert (lost == truth).double().mean().item() == pytest.approx(0.25, abs=3 * (0.25 * 0.75 / 600) ** 0.5)


def test_the_strengths_of_dinov2_are_45_inverse_values_of_c():
    assert len(STRENGTHS["dinov2"]) == 45
    assert 1 / STRENGTHS["dinov2"][0] == pytest.approx(1e-6)
    assert 1 / STRENGTHS["dinov2"][-1] == pytest.approx(1e5)


# A part of the training images


def test_a_share_holds_its_share_of_each_class_and_one_at_least():
    labels = np.repeat([0, 1, 2], [200, 40, 3])
    rows = stratified(labels, 0.1, seed=0)
    assert np.bincount(labels[rows]).tolist() == [20, 4, 1]
    assert set(stratified(labels, 0.01, seed=0)) < set(rows)
    assert stratified(labels, 0.1, seed=0).tolist() == rows.tolist() != stratified(labels, 0.1, seed=1).tolist()


def test_a_share_is_named_in_details_and_part_of_the_protocol():
    train, val = Coloured(LABELS, seed=1), Coloured(LABELS, seed=2)
    half, third = (
        evaluate_logistic("pixels", train, val, LogisticSettings(share=share, form="ridge", size=16, workers=0))
        for share in (0.5, 0.3)
    )
    names = half.details["subset"]["names"]
    assert len(names) == half.facts["data"]["images"] == 40
    rows = [int(name.removeprefix("picture ")) for name in names]
    assert half.facts["data"]["sha256"] == hashlib.sha256(np.array(rows).tobytes()).hexdigest()
    assert half.fingerprint != third.fingerprint


def test_a_list_chooses_by_the_end_of_names_and_says_what_it_found(tmp_path):
    file = tmp_path / "10percent.txt"
    file.write_text("picture 3\npicture 5\n\npicture 900\n")
    chosen = choose(Coloured(LABELS), LABELS, np.arange(80), Choice(list=str(file)), 0)
    assert chosen.positions.tolist() == [3, 5]
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert chosen.facts == {"list_sha256": digest}
    assert f"2 training images from {file} (3 names, sha256 {digest[:12]})" in chosen.notes[0]
    assert "1 names have no image, such as 'picture 900'" in chosen.notes[0]


def test_a_list_with_a_byte_order_mark_keeps_its_first_name_and_one_in_no_utf8_is_refused(tmp_path):
    file = tmp_path / "list.txt"
    file.write_bytes(b"\xef\xbb\xbfpicture 3\r\npicture 5\r\n")
    chosen = choose(Coloured(LABELS), LABELS, np.arange(80), Choice(list=str(file)), 0)
    assert chosen.positions.tolist() == [3, 5]
    file.write_bytes("picture 3\nStraße 5\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"list.txt' is no UTF-8 text \(byte 14\); save it as UTF-8"):
        choose(Coloured(LABELS), LABELS, np.arange(80), Choice(list=str(file)), 0)


def test_names_of_a_list_may_hold_the_folder_or_not(tmp_path):
    class Named(Coloured):
        def name(self, i):
            return ["/data/train-0.tar:n01/a.JPEG", "/data/train-0.tar:n02/a.JPEG", "/data/train-0.tar:n02/b.JPEG"][i]

    def chosen(text):
        (tmp_path / "list").write_text(text)
        images = Named([0, 1, 1])
        return choose(images, images.labels(), np.arange(3), Choice(list=str(tmp_path / "list")), 0).positions.tolist()

    assert chosen("n02/a.JPEG\nb.JPEG\n") == [1, 2]
    with pytest.raises(ValueError, match=r"names 'a.JPEG', which fits 2 images; write its folder too"):
        chosen("a.JPEG")
    with pytest.raises(ValueError, match="names none of the 3 images"):
        chosen("c.JPEG")
    with pytest.raises(ValueError, match="no list"):
        choose(Named([0, 1, 1]), np.array([0, 1, 1]), np.arange(3), Choice(list=str(tmp_path / "none")), 0)


# Few shots


def test_one_shot_by_centroid_is_the_nearest_neighbour_and_so_is_each_vote():
    features, labels = cloud(60, noise=0.5)
    unit = torch.nn.functional.normalize(features, dim=1)
    shots = torch.tensor([(labels == c).nonzero()[0, 0] for c in range(5)])
    expected = (unit @ unit[shots].T).argmax(1)
    for classifier in ("centroid", "knn"):
        assert predict(unit[shots], labels[shots], unit, classifier, 5)[:, 0].tolist() == expected.tolist()


def test_centroids_are_means_of_unit_vectors_by_hand():
    shots = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [0.0, 1.0]])
    query = torch.tensor([[0.8, 0.6], [0.5, 0.866]])
    ranked = predict(shots, torch.tensor([3, 3, 1, 1]), query, "centroid", 5)
    assert ranked.tolist() == [[3, 1], [1, 3]]  # 3: (0.8, 0.4) / 0.894; cosines 0.984 and 0.835 against 0.6 and 0.866


def test_the_interval_is_students_over_the_draws():
    found = over_draws([{"top1": share} for share in (0.5, 0.6, 0.7)])
    half = 4.302653 * 0.1 / 3**0.5  # t of 2 degrees of freedom, standard deviation 0.1
    assert found["top1"] == pytest.approx(0.6)
    assert found["top1_low"] == pytest.approx(0.6 - half, abs=1e-6)
    assert found["top1_high"] == pytest.approx(0.6 + half, abs=1e-6)


@pytest.mark.parametrize("classifier", ["centroid", "knn", "logistic"])
def test_a_few_shots_tell_colours_apart_and_a_small_class_is_told(classifier):
    labels = np.concatenate([LABELS, [8, 8]])
    settings = FewShotSettings(shots=(1, 5), draws=3, classifier=classifier, size=16, workers=0)
    result = evaluate_few_shot("pixels", Coloured(labels, seed=1), Coloured(labels[-20:], seed=2), settings)
    assert min(result.scores["5 shots"]["top1"], result.scores["1 shot"]["top1"]) > 0.8
    assert any("smallest class has 2 images, fewer than 5" in note for note in result.notes)
    assert result.items["1 shot"].values.mean() == pytest.approx(result.scores["1 shot"]["top1"])


def test_shots_that_are_all_images_have_the_interval_of_the_test_images():
    labels = LABELS[:24]
    train, val = Coloured(labels, seed=1), Coloured(labels)
    val.load = Coloured(np.where(np.arange(24) % 3, labels, (labels + 1) % 8), seed=2).load  # a third looks otherwise
    result = evaluate_few_shot("pixels", train, val, FewShotSettings(shots=(2, 3, 50), size=16, workers=0))
    assert [len(top1) for top1 in result.details["top1_of_each_draw"].values()] == [5, 1, 1]
    row = result.scores["50 shots"]
    assert row["top1"] == pytest.approx(2 / 3)
    normal = 1.96 * (2 / 9 / 24) ** 0.5  # half of the interval of a share of 24 images
    assert (row["top1_high"] - row["top1_low"]) / 2 == pytest.approx(normal, rel=0.25)
    assert any(note.startswith("all training images are shots at 3, 50: there is one draw") for note in result.notes)


@pytest.mark.parametrize("classifier", ["centroid", "knn", "logistic"])
def test_perfect_shots_are_always_right_and_permuted_ones_give_chance(classifier):
    labels = torch.arange(800) % 8
    perfect = torch.nn.functional.one_hot(labels).float()
    assert (predict(perfect[:16], labels[:16], perfect, classifier, 8)[:, 0] == labels).all()
    random = torch.Generator().manual_seed(0)
    noise = torch.nn.functional.normalize(torch.randn(816, 40, generator=random), dim=1)
    found = predict(noise[:16], labels[:16], noise[16:], classifier, 8)[:, 0]
    share = (found == labels[torch.randperm(800, generator=random)]).double().mean().item()
    assert share == pytest.approx(1 / 8, abs=3 * (7 / 64 / 800) ** 0.5)


def test_the_same_seed_gives_the_same_number():
    train, val = Coloured(LABELS, seed=1), Coloured(LABELS, seed=2)
    shots = FewShotSettings(shots=(1,), draws=2, size=16, workers=0)
    half = LogisticSettings(size=16, workers=0, share=0.5)
    assert len({evaluate_few_shot("pixels", train, val, shots).json() for _ in range(2)}) == 1
    assert len({evaluate_logistic("pixels", train, val, half).json() for _ in range(2)}) == 1
