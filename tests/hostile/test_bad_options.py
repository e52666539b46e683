"""Options that cannot work: exit code 2 and one line with what to change, never a traceback."""

import hashlib
import json
import subprocess
import sys

import pytest
import torch

from polygrain.cli import main
from tests.hostile.doors import complaint, photos
from tests.hostile.payloads import checkpoint, payloads

TINY = {"depth": 1, "embed_dim": 32, "num_heads": 2}


@pytest.fixture
def told(tmp_path, capsys):
    images = photos(tmp_path / "photos")

    def complain(*options: object) -> str:
        run = ["pretrain", images, "--out", tmp_path / "run", "--epochs", 1, "--batch-size", 2, "--workers", 0]
        if "--encoder" not in options:
            run += ["--encoder", "vit_mini_64"]
        if "--encoder-args" not in options:
            run += ["--encoder-args", str(TINY)]
        return complaint(capsys, *run, *options)

    return complain


@pytest.mark.parametrize(
    "arguments",
    [
        {"patch_size": 0},
        {"num_heads": 0},
        {"depth": -1},
        {"depth": "many"},
        {"embed_dim": 30, "num_heads": 4},
        {"norm_layer": "os.system"},
        {"act_layer": "nothing"},
        {"surprise": 1},
    ],
)
def test_arguments_that_no_encoder_can_have_are_named(told, arguments):
    line = told("--encoder-args", str({**TINY, **arguments}))
    assert "vit_mini_64 cannot be built with" in line and next(iter(arguments)) in line


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (("--encoder", "../../etc/passwd"), "timm knows no model '../../etc/passwd'"),
        (("--encoder", "hf_hub:someone/model"), "timm knows no model 'hf_hub:someone/model'"),
        (("--encoder", "swin_tiny_patch4_window7_224", "--encoder-args", "{}"), "is not among the backbones"),
        (("--encoder-args", "[1]"), "--encoder-args"),
        (("--from", "timm:nothing"), "timm knows no model 'nothing'"),
        (("--from", "nowhere.pth"), "there is no file nowhere.pth"),
        (("--from", "/dev/zero"), "there is no file /dev/zero"),
        (("--from", "."), "holds no backbone.safetensors"),
        (("--precision", "64"), "--precision cannot be '64'"),
        (("--mugs.large-size", 100_000), "large_size is 100000; it must be 1 to 4,096 pixels"),
        (("--mugs.large-size", 60), "nearest sizes: 56 and 64"),
        (("--mugs.prototypes", 1), "prototypes is 1; it must be 2 or more"),
        (
            ("--mugs.instance-weight", 0, "--mugs.group-weight", 0, "--mugs.local-group-weight", 0),
            "one must be above 0",
        ),
        (("--local.weight", "1e999"), "weight is inf"),
        (("--local.weight", "-0.5"), "weight is -0.5; it must be 0 or more"),
        (("--mugs", "evil.Model"), "mugs holds options; give them as --mugs.NAME"),
        (("--std", "[1,1,0]"), "it must be above 0"),
        (("--batch-size", 5), "batch size 5 is larger than the data (4 images)"),
        (("--accumulate", 3), "take a multiple of 3"),
        (("--out", "/proc/nowhere/run"), "/proc/nowhere"),
    ],
)
def test_an_option_that_cannot_work_is_told_with_its_bounds(told, options, wanted):
    assert wanted in told(*options)


def test_an_output_that_is_a_file_is_refused_before_anything_is_built(told, tmp_path):
    (tmp_path / "file").write_text("mine")
    assert "is a file" in told("--out", tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_checkpoint_with_a_payload_is_not_resumed_and_does_not_run(tmp_path):
    """Even where its manifest was made to fit."""
    images = photos(tmp_path / "photos")
    run = ["pretrain", str(images), "--out", str(tmp_path / "run"), "--epochs", "1", "--batch-size", "2"]
    run += ["--encoder", "vit_mini_64", "--encoder-args", str(TINY), "--workers", "0", "--mugs.hidden", "16"]
    assert main([*run, "--stop-after-steps", "1"]) == 0
    manifest = max((tmp_path / "run" / "checkpoints").glob("step-*.json"))
    checkpoint_file = manifest.with_suffix(".pt")
    told = json.loads(manifest.read_text())
    honest = checkpoint_file.read_bytes()
    assert told["sha256"] == hashlib.sha256(honest).hexdigest()
    canary = tmp_path / "canary"
    torch.save(checkpoint(payloads(canary)["os.system"]), checkpoint_file)
    hostile = checkpoint_file.read_bytes()
    fields = {len(honest): len(hostile), told["sha256"]: hashlib.sha256(hostile).hexdigest()}
    told = {key: fields.get(value, value) if isinstance(value, int | str) else value for key, value in told.items()}
    manifest.write_text(json.dumps(told))
    resumed = subprocess.run([sys.executable, "-m", "polygrain.cli", *run, "--resume"], check=False, timeout=120)
    assert resumed.returncode == 2 and not canary.exists()


def test_exports_are_not_written_over_what_is_no_file(tmp_path, capsys):
    (tmp_path / "out.pth").mkdir()
    line = complaint(capsys, "export", "random:vit_mini_64", "--to", "torch", "--out", tmp_path / "out.pth")
    assert "is not a file" in line
