"""The registry of protocols, from the command line, from YAML and from Python."""

import inspect
import json

import pytest

import polygrain
from polygrain.cli import main
from polygrain.evaluate.protocols import PROTOCOLS
from tests.evaluate.fakes import Coloured


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_protocol_has_its_function_its_data_and_a_line_for_help(name, capsys):
    protocol = PROTOCOLS[name]
    wanted = [option.rstrip("?") for option in protocol.data]
    parameters = inspect.signature(protocol.function()).parameters
    assert {*parameters} == {"model", *wanted, "settings"}
    assert (protocol.settings.__doc__ or "").splitlines()[0].endswith(".")
    with pytest.raises(SystemExit, match="0"):
        main(["evaluate", name.replace("_", "-"), "--help"])
    assert f"polygrain evaluate {name.replace('_', '-')} MODEL" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("track", "resize aspect readout batch-size workers cache"),
        ("copies", "resize aspect readout cache"),
        ("correspond", "resize aspect readout batch-size workers cache"),
        ("unlabelled", "aspect"),
        ("finetune", "cache"),
    ],
)
def test_a_protocol_has_no_option_that_it_would_ignore(name, options, capsys):
    for option in options.split():
        assert main(["evaluate", name, "pixels", "--data", "scenes:8:32", f"--{option}", "1"]) == 2
        assert f"unknown option --{option}" in capsys.readouterr().err


def test_options_of_a_protocol_can_stand_in_a_file(tmp_path, capsys):
    config = tmp_path / "knn.yaml"
    config.write_text("data: scenes:40:32:0\nval: scenes:20:32:1\nk: [3]\nsize: 32\nworkers: 0\n")
    out = tmp_path / "knn.json"
    assert main(["evaluate", "knn", "pixels", "--config", str(config), "--json", str(out)]) == 0
    assert [*json.loads(out.read_text())["scores"]] == ["k=3"]


def test_a_configuration_that_builds_classes_is_refused(tmp_path, capsys):
    config = tmp_path / "bad.yaml"
    config.write_text("data:\n  class_path: os.system\n")
    assert main(["evaluate", "knn", "pixels", "--config", str(config), "--val", "scenes"]) == 2


def test_a_result_that_could_not_be_written_is_refused_before_the_work(tmp_path, capsys):
    nowhere = str(tmp_path / "none" / "x.json")
    given = ["--data", "scenes:40:32:0", "--val", "scenes:20:32:1", "--json", nowhere]
    assert main(["evaluate", "knn", "pixels", *given]) == 2
    assert "make it first" in capsys.readouterr().err


def test_python_measures_as_the_command_line_does():
    train, val = Coloured([0, 1, 2, 3] * 5), Coloured([0, 1, 2, 3] * 2, seed=1)
    result = polygrain.measure("knn", "pixels", train, val, k=(3,), size=16, workers=0)
    assert result.scores["k=3"]["top1"] == 1
    with pytest.raises(ValueError, match="unknown protocol 'nn'"):
        polygrain.measure("nn", "pixels", train, val)
    with pytest.raises(ValueError, match="takes no val"):
        polygrain.measure("unlabelled", "pixels", train, val)
