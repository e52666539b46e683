import json
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from polygrain.arguments import typed
from polygrain.cli import main
from polygrain.commands.pretrain import merge


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(8):
        pixels = np.random.default_rng(i).integers(0, 255, (70, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


def complaint(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What a wrong command line prints: exactly one line, and exit code 2."""
    assert main([str(argument) for argument in arguments]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["pretrian", "x"], "did you mean 'pretrain'"),
        (["pretrain", "x", "--out", "y", "--method", "mugz"], "unknown method 'mugz'; did you mean 'mugs'"),
        (["pretrain", "x", "--out", "y", "--epoch", "3"], "unknown option --epoch; did you mean --epochs"),
        (["pretrain", "x", "--out", "y", "--mugs.queue-sise", "3"], "did you mean --mugs.queue-size"),
        (["pretrain", "x", "--out", "y", "--epochs", "many"], "--epochs cannot be 'many'; wanted: int"),
        (["pretrain", "x", "--out", "y", "--epochs", "0"], "epochs is 0; it must be 1 or more"),
        (["pretrain", "x"], "missing --out"),
        (["pretrain", "x", "--out", "y", "--recipe", "mugs-vits16-100"], "did you mean 'mugs-vits16-100ep'"),
        (["evaluate", "knm", "x"], "did you mean 'knn'"),
        (["evaluate", "knn", "x", "--data", "a"], "missing --val"),
    ],
)
def test_a_wrong_command_line_is_told_in_one_line_with_the_nearest_name(
    capsys: pytest.CaptureFixture[str], arguments: list[str], wanted: str
) -> None:
    assert wanted in complaint(capsys, *arguments)


def test_a_missing_folder_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "nowhere" in complaint(capsys, "pretrain", tmp_path / "nowhere", "--out", tmp_path / "run")


def test_an_empty_folder_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "empty" in complaint(capsys, "pretrain", tmp_path / "empty", "--out", tmp_path / "run")


def test_an_output_folder_in_use_is_refused(capsys: pytest.CaptureFixture[str], photos: Path) -> None:
    told = complaint(capsys, "pretrain", photos, "--out", photos)
    assert "is in use" in told and "--resume" in told


def test_a_batch_larger_than_the_data_is_refused(
    capsys: pytest.CaptureFixture[str], photos: Path, tmp_path: Path
) -> None:
    told = complaint(capsys, "pretrain", photos, "--out", tmp_path / "run", "--batch-size", 64)
    assert "batch size 64 is larger than the data (8 images)" in told


def test_a_crop_that_the_patch_does_not_divide_is_refused_with_nearest_sizes(
    capsys: pytest.CaptureFixture[str], photos: Path, tmp_path: Path
) -> None:
    told = complaint(capsys, "pretrain", photos, "--out", tmp_path / "run", "--mugs.large-size", 60)
    assert "60" in told and "56 and 64" in told


def test_a_memory_smaller_than_k_is_refused(capsys: pytest.CaptureFixture[str], photos: Path, tmp_path: Path) -> None:
    told = complaint(
        capsys, "pretrain", photos, "--out", tmp_path / "run", "--mugs.memory-size", 4, "--mugs.neighbours", 8
    )
    assert re.search(r"\b4\b", told) and re.search(r"\b8\b", told)


def test_an_unknown_encoder_is_refused_with_near_names(
    capsys: pytest.CaptureFixture[str], photos: Path, tmp_path: Path
) -> None:
    assert "vit_mini_64" in complaint(
        capsys, "pretrain", photos, "--out", tmp_path / "run", "--encoder", "vit_minni_64"
    )


def test_a_recipe_keeps_the_papers_values_and_named_options_win(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    small = ["--vicregl.large-size", 32, "--vicregl.expander-width", 16, "--vicregl.local-width", 16]
    small += ["--vicregl.num-matches", "[4,2]", "--encoder", "resnet18_64", "--epochs", 1, "--batch-size", 4]
    arguments = ["pretrain", photos, "--recipe", "vicregl-resnet50-100ep", "--out", out, "--workers", 0, *small]
    assert main([str(argument) for argument in arguments]) == 0
    config = yaml.safe_load((out / "config.yaml").read_text())
    assert config["vicregl"]["base_lr"] == 0.3 and config["vicregl"]["large_scale"] == [0.08, 1.0]
    assert config["scale"] == "paper" and config["vicregl"]["num_matches"] == [4, 2] and config["epochs"] == 1


def test_a_run_can_be_repeated_from_its_own_configuration(photos: Path, tmp_path: Path) -> None:
    tiny = ["--encoder", "vit_mini_64", "--encoder-args", "{depth: 1, embed_dim: 32, num_heads: 2}", "--workers", 0]
    first = ["pretrain", photos, "--out", tmp_path / "a", "--epochs", 1, "--batch-size", 4, *tiny]
    assert main([str(argument) for argument in first]) == 0
    again = ["pretrain", "--config", tmp_path / "a" / "config.yaml", "--out", tmp_path / "b"]
    assert main([str(argument) for argument in again]) == 0
    assert (tmp_path / "a" / "backbone.safetensors").read_bytes() == (
        tmp_path / "b" / "backbone.safetensors"
    ).read_bytes()


def test_two_devices_train_as_one_with_the_whole_batch(photos: Path, tmp_path: Path) -> None:
    tiny = ["--encoder", "vit_mini_64", "--encoder-args", "{depth: 1, embed_dim: 32, num_heads: 2}", "--workers", "0"]
    tiny += ["--mugs.hidden", "32", "--local.weight", "0.1", "--local.width", "16", "--log-every", "1"]
    records = []
    for devices in ("1", "2"):
        out = tmp_path / devices
        run = ["pretrain", str(photos), "--out", str(out), "--epochs", "2", "--batch-size", "4", "--devices", devices]
        subprocess.run([sys.executable, "-m", "polygrain.cli", *run, *tiny], check=True, timeout=140)
        records.append([json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()])
    for one, two in zip(*records, strict=True):
        for name in ("loss", "gradient_norm", "instance/info_nce", "group/cross_entropy", "local/variance"):
            assert one[name] == pytest.approx(two[name], rel=1e-4), (one["step"], name)


def test_help_does_not_import_torch() -> None:
    code = "import sys; from polygrain.cli import main; main(['pretrain', '--help']); sys.exit('torch' in sys.modules)"
    began = time.perf_counter()
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
    assert time.perf_counter() - began < 30  # a hang; how long it takes is measured by hand


def test_words_without_a_name_take_their_place_and_flags_stand_alone() -> None:
    assert typed(["photos", "--batch-size", "8", "--resume", "--out=r"], ["data"], ["resume"]) == [
        "--data=photos",
        "--batch_size=8",
        "--resume=true",
        "--out=r",
    ]
    assert typed(["--resume", "photos"], ["data"], ["resume"]) == ["--resume=true", "--data=photos"]
    assert typed(["--from", "timm:resnet18"]) == ["--start_from=timm:resnet18"]


def test_what_stands_above_wins_option_by_option() -> None:
    below = {"epochs": 1, "mugs": {"queue_size": 2, "momentum": 0.9}}
    assert merge(below, {"mugs": {"queue_size": 4}}) == {"epochs": 1, "mugs": {"queue_size": 4, "momentum": 0.9}}


def test_lists_are_given_as_people_do(tmp_path, capsys):
    out = tmp_path / "knn.json"
    sets = ["--data", "scenes:30:32:0", "--val", "scenes:15:32:1", "--size", "32", "--workers", "0"]
    assert main(["evaluate", "knn", "pixels", *sets, "--k", "3,7", "--json", str(out)]) == 0
    assert [*json.loads(out.read_text())["scores"]] == ["k=3", "k=7"]
    assert main(["evaluate", "knn", "pixels", *sets, "--k", "three"]) == 2
    assert "--k cannot be 'three'; wanted: int" in capsys.readouterr().err
