import hashlib
import json

import numpy as np
import pytest
import torch
from PIL import Image

from polygrain.data.photometric import Normalisation
from polygrain.evaluate.knn import evaluate_knn
from polygrain.evaluate.labelled import common_labels
from polygrain.evaluate.linear import evaluate_linear
from polygrain.evaluate.models import open_model, pick_device, weights_sha256
from polygrain.evaluate.pixels import RawPixels
from polygrain.evaluate.settings import FewShotSettings, KnnSettings, LinearSettings, LogisticSettings
from polygrain.parts.encoder import Encoder, EncoderSettings
from polygrain.weights.backbone import save_backbone
from tests.evaluate.fakes import Coloured

LABELS = np.arange(40) % 8


def train_and_val():
    return Coloured(LABELS, seed=1), Coloured(LABELS, seed=2)


def test_knn_tells_colours_apart_and_spells_its_protocol_out():
    result = evaluate_knn("pixels", *train_and_val(), KnnSettings(k=(1, 5), size=16, workers=0))
    assert result.scores["k=5"]["top1"] > 0.9
    spelt = json.loads(result.json())
    assert spelt["protocol"] == "knn"
    assert spelt["facts"]["k"] == [1, 5]
    assert spelt["facts"]["settings"]["temperature"] == 0.07
    assert spelt["facts"]["data"]["images"] == spelt["facts"]["val"]["images"] == 40
    assert spelt["facts"]["chance"] == 1 / 8
    assert {"preprocessing", "features"} <= spelt["facts"].keys()
    assert spelt["details"]["versions"]["torch"]


def test_a_k_above_the_number_of_images_is_lowered_and_said():
    result = evaluate_knn("pixels", *train_and_val(), KnnSettings(k=(5, 100, 200), size=16, workers=0))
    assert list(result.scores) == ["k=5", "k=40"]
    assert any("lowered to 40" in note for note in result.notes)
    assert "lowered to 40" in result.table()
    assert "40 images of 8 classes (chance 12.5%)" in result.table()


def test_top5_is_left_out_where_k_is_below_five():
    scores = evaluate_knn("pixels", *train_and_val(), KnnSettings(k=(1, 5), size=16, workers=0)).scores
    assert "top5" not in scores["k=1"]
    assert "top5" in scores["k=5"]


def test_images_without_a_label_are_left_out_and_said():
    labels = LABELS.copy()
    labels[:3] = -1
    result = evaluate_knn("pixels", Coloured(labels), Coloured(LABELS), KnnSettings(k=(5,), size=16, workers=0))
    assert result.facts["data"]["images"] == 37
    assert any("3 training images have no label" in note for note in result.notes)


def test_classes_are_matched_by_name_not_by_number():
    train = Coloured([0, 1, 2, 2], classes=["ant", "bee", "cow"])
    val = Coloured([0, 1, -1], classes=["bee", "cow"])
    assert common_labels(train, val)[1].tolist() == [1, 2, -1]
    with pytest.raises(ValueError, match="'dog'"):
        common_labels(train, Coloured([0], classes=["dog"]))


def test_a_split_with_one_class_is_refused_and_says_what_to_do():
    with pytest.raises(ValueError, match=r"all images of --data have the same class .3.* give images of two classes"):
        evaluate_knn("pixels", Coloured([3, 3, 3]), Coloured([3, 4]))
    with pytest.raises(ValueError, match="all images of --val have the same class"):
        evaluate_knn("pixels", Coloured([0, 1]), Coloured([1, 1]))


def test_a_folder_with_one_class_folder_is_refused_as_one_class(tmp_path):
    for name in ("train/ant", "train/bee", "val/ant"):
        (tmp_path / name).mkdir(parents=True)
        Image.new("RGB", (16, 16)).save(tmp_path / name / "0.png")
    train, val = str(tmp_path / "train"), str(tmp_path / "val")
    with pytest.raises(ValueError, match=r"^all images of --val lie in one folder, 'ant'; give images of two classes"):
        evaluate_knn("pixels", train, val)
    with pytest.raises(ValueError, match=r"^all images of --data lie in one folder, 'ant'"):
        evaluate_knn("pixels", val, train)


def test_a_label_beyond_the_named_classes_is_refused_and_names_the_image():
    with pytest.raises(ValueError, match="'picture 1' of --val has label 7, and its source names 2 classes"):
        evaluate_knn("pixels", Coloured([0, 1], classes=["a", "b"]), Coloured([0, 7], classes=["a", "b"]))


def test_class_numbers_with_gaps_are_numbered_anew_and_said():
    settings = KnnSettings(k=(3,), size=16, workers=0)
    gaps = evaluate_knn("pixels", Coloured(LABELS * 100_000 + 5), Coloured(LABELS * 100_000 + 5), settings)
    plain = evaluate_knn("pixels", Coloured(LABELS), Coloured(LABELS), settings)
    assert gaps.facts["classes"] == 8
    assert any("run from 5 to 700005 with 8 in use" in note for note in gaps.notes)
    assert not any("run from" in note for note in plain.notes)


def test_classes_that_only_one_split_has_are_told():
    train, val = Coloured([0, 1, 2, 2], classes=["ant", "bee", "cow", "dog"]), Coloured([0, 1, 3, 3])
    result = evaluate_knn("pixels", train, val, KnnSettings(k=(1,), size=16, workers=0))
    assert "no training image is of class 'dog': 2 validation images that cannot be right" in result.notes
    assert "no validation image is of class 'cow'" in result.notes


def test_constant_features_are_said_and_score_as_a_tie():
    class Black(Coloured):
        def load(self, i):
            return torch.zeros(3, 16, 16, dtype=torch.uint8)

    result = evaluate_knn("pixels", Black(LABELS), Black(LABELS), KnnSettings(k=(40,), size=16, workers=0))
    assert any("are the same" in note for note in result.notes)
    assert result.scores["k=40"]["top1"] == 1 / 8  # ties go to the lowest class


def test_a_set_without_labels_is_refused():
    class Unlabelled(Coloured):
        def labels(self):
            return None

    with pytest.raises(ValueError, match="--val have no labels"):
        evaluate_knn("pixels", Coloured(LABELS), Unlabelled(LABELS))


def test_a_size_that_is_given_is_the_same_protocol_as_one_that_is_the_models_own():
    images, own = Coloured(LABELS), RawPixels().image_size
    given = {"workers": 0, "cache": "none"}
    for evaluate, kind in ((evaluate_knn, KnnSettings), (evaluate_linear, LinearSettings)):
        sized, unsized = (evaluate(RawPixels(), images, images, kind(size=size, **given)) for size in (own, None))
        assert sized.fingerprint == unsized.fingerprint


def test_the_same_seed_gives_the_same_result():
    settings = LinearSettings(learning_rates=(0.1, 1.0), epochs=3, size=16, workers=0)
    first, second = (evaluate_linear("pixels", *train_and_val(), settings) for _ in range(2))
    assert first.json() == second.json()
    assert first.items["linear"].values.tolist() == second.items["linear"].values.tolist()


def test_an_untrained_encoder_follows_the_seed():
    def digest(seed):
        settings = KnnSettings(k=(5,), workers=0, seed=seed)
        train, val = Coloured(LABELS[:8], size=64), Coloured(LABELS[:8], size=64, seed=1)
        return evaluate_knn("random:vit_mini_64", train, val, settings).model["weights_sha256"]

    assert digest(0) == digest(0) != digest(1)


def test_a_file_is_known_by_its_digest_and_its_weights_by_theirs(tmp_path):
    encoder = Encoder(EncoderSettings(name="vit_mini_64", arguments={"depth": 1}))
    grey = Normalisation((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    save_backbone(tmp_path / "backbone.safetensors", encoder, normalisation=grey, extra={"crop_size": 32})
    from_run, from_file = open_model(tmp_path), open_model(str(tmp_path / "backbone.safetensors"))
    digest = hashlib.sha256((tmp_path / "backbone.safetensors").read_bytes()).hexdigest()
    assert from_run.checkpoint_sha256 == from_file.checkpoint_sha256 == digest
    assert from_run.weights_sha256 == weights_sha256(encoder)
    assert from_run.normalisation == grey
    assert from_run.image_size == 32
    with torch.no_grad():
        next(encoder.parameters()).view(-1)[0] += 1e-3
    assert weights_sha256(encoder) != from_run.weights_sha256


def test_sizes_and_names_that_cannot_be_are_refused():
    encoder = Encoder(EncoderSettings(name="vit_mini_64", arguments={"depth": 1}))
    with pytest.raises(ValueError, match="60 px does not divide"):
        evaluate_knn(encoder, *train_and_val(), KnnSettings(size=60))
    with pytest.raises(ValueError, match="not 12 px"):
        evaluate_knn("pixels", *train_and_val(), KnnSettings(size=12))
    with pytest.raises(ValueError, match="did you mean 'pixels'"):
        evaluate_knn("pixel", *train_and_val())


def test_an_encoder_in_memory_is_a_model_too():
    result = evaluate_knn(RawPixels(), *train_and_val(), KnnSettings(k=(5,), size=16, workers=0))
    assert result.model["name"] == "RawPixels"
    assert result.model["checkpoint_sha256"] is None


@pytest.mark.parametrize(
    ("settings", "wrong", "message"),
    [
        (KnnSettings, {"k": ()}, r"k is \[\]"),
        (KnnSettings, {"k": (0,)}, r"k is \[0\]"),
        (KnnSettings, {"temperature": 0.0}, "temperature is 0.0"),
        (KnnSettings, {"size": 64, "resize": 32}, "resize is 32"),
        (KnnSettings, {"batch_size": 0}, "batch_size is 0"),
        (KnnSettings, {"workers": -1}, "workers is -1"),
        (LinearSettings, {"held_out": 1.0}, "held_out is 1.0"),
        (LinearSettings, {"learning_rates": (0.1, 0.0)}, "learning_rates"),
        (LinearSettings, {"epochs": 0}, "epochs is 0"),
        (LinearSettings, {"preset": "mae", "epochs": 10}, "epochs is 10, and preset mae rises to its .* in 10"),
        (LinearSettings, {"preset": "dino"}, "did you mean dinov2"),
        (LinearSettings, {"readouts": ("pooled", "cls1")}, r"\[pooled, cls1\], and pooled cannot be swept"),
        (LinearSettings, {"readouts": ("cls1", "cls1")}, r"\[cls1, cls1\]; give one or more, each once"),
        (LinearSettings, {"readouts": ()}, r"readouts are \[\]; give one or more"),
        (LinearSettings, {"readout": "pooled", "readouts": ("cls1",)}, r"readout is pooled and .* \[cls1\]; give one"),
        (LogisticSettings, {"share": 0.1, "list": "a.txt"}, "give one of them"),
        (LogisticSettings, {"share": 0.0}, "share is 0.0"),
        (LogisticSettings, {"strengths": (0.0,)}, "strengths are"),
        (FewShotSettings, {"shots": (0,)}, "shots are"),
        (FewShotSettings, {"draws": 1}, "draws is 1"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, wrong, message):
    with pytest.raises(ValueError, match=message):
        settings(**wrong)


def test_a_device_that_is_not_there_is_refused_in_one_line(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert pick_device("auto") == "cpu"
    with pytest.raises(ValueError, match=r"^device is 'cuda', which torch does not find here; there is cpu$"):
        evaluate_knn("pixels", *train_and_val(), KnnSettings(k=(1,), size=16, workers=0, device="cuda"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device("auto") == pick_device("cuda") == "cuda"


def test_settings_import_nothing_heavy():
    import subprocess
    import sys

    code = "import sys, polygrain.evaluate.settings; print([m for m in ('torch', 'numpy', 'timm') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
