"""The table of methods."""

import pytest

from polygrain.cli import main
from polygrain.methods import METHODS, VERIFIED
from polygrain.methods.overview import overview, table


def test_sizes_are_those_one_counts_by_hand_and_every_method_is_there() -> None:
    rows = {row.method: row for row in overview()}
    assert [*rows] == [*METHODS] and VERIFIED.keys() == METHODS.keys()
    expander = 2048 * 8192 + 2 * 8192 * 8192 + 2 * 8192 + 2 * 2 * 8192  # three layers, the last without bias, two norms
    assert rows["vicreg"].heads == pytest.approx(4 * expander / 2**20)
    assert rows["vicreg"].networks == 1 and rows["mugs"].networks == 2
    memories = 2 * 65536 * 384 + 2 * 65536 * 256 + 65536  # two memories, two queues, the centre
    assert rows["mugs"].stores == pytest.approx(4 * memories / 2**20, rel=1e-5)
    assert rows["mugs"].granularity == "instance, local group, group"
    assert rows["ibot"].encoders == "ViT" and rows["vicregl"].encoders == "ViT, ResNet, ConvNeXt"
    assert rows["vicregl"].granularity == "instance, region"
    lines = table([*rows.values()]).splitlines()
    assert len(lines) == len(METHODS) + 1 and max(map(len, lines)) < 200


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods"]) == 0
    assert "local group" in capsys.readouterr().out
