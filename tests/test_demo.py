import json
import re
from pathlib import Path

import pytest

from polygrain import demo


@pytest.mark.slow
def test_the_demo_trains_measures_and_writes_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"TRAIN": 64, "BANK": 80, "QUERIES": 40, "SEGMENTED": 40, "EPOCHS": 2}.items():
        monkeypatch.setattr(demo, name, value)
    monkeypatch.setattr(demo, "METHOD", {**demo.METHOD, "hidden": 32, "predictor_hidden": 32})
    scores = demo.run_demo(tmp_path / "demo", seed=5)
    assert {*scores} == {"raw pixels", "untrained", "trained"}
    assert json.loads((tmp_path / "demo" / "scores.json").read_text())["scores"] == scores
    table = capsys.readouterr().out
    assert f"{scores['trained']['fine kNN']:.1%}" in table and "segmentation mIoU" in table
    page = (tmp_path / "demo" / "report.html").read_text()
    assert not re.search(r"""(src|href)=["']?http|url\(["']?http|@import""", page)  # nothing comes from elsewhere
    assert page.count("data:image/png;base64") == 2 * 8 + 1 and "seed 5" in page  # patch maps, and the matches
    assert (tmp_path / "demo" / "run" / "backbone.safetensors").exists()
    demo.run_demo(tmp_path / "demo", seed=5)  # an older demo makes room


def test_the_demo_leaves_other_folders_alone(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(ValueError, match="does not hold an older demo"):
        demo.run_demo(tmp_path)
    assert (tmp_path / "letter.txt").read_text() == "mine"
