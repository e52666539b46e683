"""Configurations from strangers are data: nothing in them runs, imports, explodes or is half understood."""

import sys
import time

import pytest

from polygrain.cli import main
from polygrain.configuration import read_yaml
from tests.hostile.doors import complaint, photos


@pytest.fixture
def refuse(tmp_path, capsys, monkeypatch):
    """Says what is told of a run with this configuration; a module `evil` beside it leaves a canary when imported."""
    canary = tmp_path / "canary"
    (tmp_path / "evil.py").write_text(f"open({str(canary)!r}, 'w').close()\nclass Model: ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    images = photos(tmp_path / "photos")

    def told(text: str | bytes) -> str:
        file = tmp_path / "run.yaml"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        line = complaint(capsys, "pretrain", images, "--out", tmp_path / "run", "--config", file)
        assert not canary.exists() and "evil" not in sys.modules
        return line.replace(str(canary), "CANARY")

    return told


@pytest.mark.parametrize(
    "tag",
    [
        "!!python/object/apply:os.system ['touch CANARY']",
        "!!python/object/new:os.system ['touch CANARY']",
        "!!python/object/apply:evil.Model []",
        "!!python/name:evil.Model",
        "!!python/module:evil",
        "!!python/object:evil.Model {}",
        "!evil.Model {}",
        "!!binary aGVsbG8=",
        "!!set {a, b}",
    ],
)
def test_tags_that_ask_for_objects_are_refused_by_name(refuse, tmp_path, tag):
    told = refuse(f"epochs: 1\nencoder_args: {tag.replace('CANARY', str(tmp_path / 'canary'))}\n")
    assert "line 2" in told and "asks for an object to be made" in told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("encoder_args: {_target_: os.system, _args_: [touch canary]}", "encoder_args._target_ names a class"),
        ("mugs: {class_path: evil.Model}", "mugs.class_path names a class"),
        ("mugs: {temperature: {class_path: evil.Model, init_args: {}}}", "mugs.temperature.class_path names a class"),
        ("encoder_args: {a: [{class_path: evil.Model}]}", "encoder_args.a.0.class_path names a class"),
        ("mugs: evil.Model", "mugs holds options"),
        ("local: evil.Model", "local holds options"),
        ("method: evil.Model", "unknown method 'evil.Model'"),
        ("encoder_args: evil.Model", "--encoder-args"),
        ("encoder: evil.Model", "timm knows no model"),
        ("config: other.yaml", "'config' cannot stand in a configuration"),
        ("recipe: mugs-vits16-100ep", "'recipe' cannot stand in a configuration"),
        ("data: ${oc.env:HOME}", "${oc.env:HOME}"),
    ],
)
def test_classes_other_files_and_interpolation_are_refused(refuse, text, told):
    assert told in refuse(text if text.startswith("data") else f"{text}\n")


@pytest.mark.parametrize(
    "text", ["encoder_args: '{class_path: evil.Model}'", "encoder_args: {act_layer: '{class_path: evil.Model}'}"]
)
def test_a_class_within_a_text_is_not_imported(refuse, text):
    refuse(text)


def laughs(levels: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i + 1}: &a{i + 1} [{', '.join([f'*a{i}'] * 10)}]" for i in range(levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (laughs(9), "more than 10,000 values"),
        ("a: &a {b: 1}\n" + "c: {" + ", ".join(["<<: *a"] * 9000) + "}", "more than 10,000 values"),
        ("a: &a [*a]", "*a stands within itself"),
        ("a: *nobody", "*nobody stands within itself, or for nothing"),
        ("a: " + "[" * 50_000, "more than 20 within each other"),
        ("a: " + "{b: " * 5_000, "more than 20 within each other"),
        ("a: " + "x" * 200_000, "larger than 100,000 bytes"),
    ],
)
def test_bombs_are_refused_at_once(tmp_path, text, told):
    (tmp_path / "run.yaml").write_text(text)
    began = time.process_time()
    with pytest.raises(ValueError) as caught:
        read_yaml(tmp_path / "run.yaml")
    assert told in str(caught.value) and time.process_time() - began < 10


def test_a_few_aliases_are_as_good_as_any_value(tmp_path):
    (tmp_path / "run.yaml").write_text("a: &a [1, 2]\nb: *a\nc: &c {d: 1}\ne: {<<: *c, f: 2}\n")
    assert read_yaml(tmp_path / "run.yaml") == {"a": [1, 2], "b": [1, 2], "c": {"d": 1}, "e": {"d": 1, "f": 2}}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("epochs: 1\nseed: 3\nepochs: 2\n", "line 3: 'epochs' is given twice"),
        ("mugs:\n  queue_size: 8\n  queue_size: 16\n", "line 3: 'queue_size' is given twice"),
        ("- epochs", "must hold options by name"),
        ("", "must hold options by name"),
        ("1: 2", "1 is not a name of an option"),
        ("epochs: [1", "is not YAML"),
        ("epochs: 1\n---\nepochs: 2\n", "is not YAML"),
        (b"\xff\xfe\x00\x01", "is not YAML"),
        (b"epochs: \x00", "is not YAML"),
        ("learning_rte: 3", "unknown option --learning-rte"),
        ("epoch: 3", "unknown option --epoch; did you mean --epochs?"),
        ("mugs: {queue_sise: 3}", "unknown option --mugs.queue-sise; did you mean --mugs.queue-size?"),
        ("local: {wieght: 0.25}", "unknown option --local.wieght; did you mean --local.weight?"),
    ],
)
def test_slips_are_told_in_one_line_with_the_place_or_the_nearest_name(refuse, text, told):
    assert told in refuse(text)


def test_a_configuration_that_is_a_device_or_a_folder_is_refused(tmp_path, capsys):
    for path in ("/dev/zero", tmp_path):
        told = complaint(capsys, "pretrain", "x", "--out", tmp_path / "run", "--config", path)
        assert "is not a file" in told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("mugs: {base_lr: -1}", "base_lr is -1.0; it must be above 0"),
        ("mugs: {base_lr: .nan}", "base_lr is nan"),
        ("mugs: {base_lr: .inf}", "base_lr is inf"),
        ("mugs: {base_lr: 1e-3x}", "--mugs.base-lr cannot be '1e-3x'; wanted: float"),
        ("mugs: {base_lr: fast}", "--mugs.base-lr cannot be 'fast'; wanted: float"),
        ("mugs: {base_lr: true}", "--mugs.base-lr cannot be"),
        ("mugs: {temperature: 0}", "temperature is 0.0; it must be above 0"),
        ("mugs: {momentum: 1.5}", "momentum is 1.5; it must be between 0 and 1"),
        ("mugs: {large_scale: [0.5, 0.2]}", "large_scale is [0.5, 0.2]; give the smaller share first"),
        ("mugs: {large_scale: [0, 1]}", "it must be above 0 and at most 1"),
        ("mugs: {instance_weight: -1}", "instance_weight is -1.0; it must be 0 or more"),
        ("method: vicregl\nvicregl: {alpha: 2}", "alpha is 2.0; it must be between 0 and 1"),
        ("local: {weight: .nan}", "weight is nan"),
        ("epochs: 0", "epochs is 0; it must be 1 or more"),
        ("epochs: -3", "epochs is -3"),
        ("epochs: 1.5", "--epochs cannot be '1.5'; wanted: int"),
        ("epochs: .inf", "--epochs cannot be 'inf'; wanted: int"),
        ("batch_size: -1", "batch_size is -1"),
        ("batch_size: 99999999999", "it must be 1 or more, at most 1,000,000,000"),
        ("std: [0, 1, 1]", "it must be above 0"),
        ("seed: -1", "seed is -1; it must be 0 or more"),
        ("workers: -1", "workers is -1"),
    ],
)
def test_numbers_out_of_range_are_told_before_any_data_is_touched(refuse, monkeypatch, text, told):
    import polygrain.train.setup as setup

    monkeypatch.setattr(setup, "open_images", lambda *_: pytest.fail("the data was opened"))
    assert told in refuse(text)


@pytest.mark.parametrize("written", ["1e-3", "'1e-3'", "1.0e-3", "0.001", "1E-3"])
def test_a_rate_may_be_written_in_any_way(tmp_path, monkeypatch, written):
    import polygrain.train.setup as setup

    seen = {}
    monkeypatch.setattr(setup, "pretrain", lambda settings, method, local: seen.update(method) or sys.exit(0))
    (tmp_path / "run.yaml").write_text(f"data: d\nout: o\nmugs: {{base_lr: {written}}}\n")
    with pytest.raises(SystemExit):
        main(["pretrain", "--config", str(tmp_path / "run.yaml")])
    assert seen["base_lr"] == 0.001
