"""Backbone files (safetensors) from strangers, and bits that flip."""

import json
import os
import random
import resource
import stat
import struct
import sys

import pytest
import torch
from safetensors.torch import save_file

from polygrain.data.photometric import IMAGENET
from polygrain.parts.encoder import Encoder, EncoderSettings
from polygrain.weights.backbone import open_backbone, read_backbone, save_backbone
from tests.hostile.doors import DOORS, complaint, through

SMALL = {"depth": 1, "embed_dim": 32, "num_heads": 2}


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("sound") / "backbone.safetensors"
    encoder = Encoder(EncoderSettings(name="vit_mini_64", arguments=SMALL))
    save_backbone(path, encoder, normalisation=IMAGENET, extra={"method": "mugs", "step": 3})
    return path


def with_header(path, target, change):
    """The same file with `change(header)` as its header."""
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    changed = change(header)
    written = changed if isinstance(changed, bytes) else json.dumps(header).encode()
    target.write_bytes(struct.pack("<Q", len(written)) + written + raw[8 + length :])


def refusal(path) -> str:
    with pytest.raises(ValueError) as caught:
        read_backbone(path)
    told = str(caught.value)
    assert str(path) in told and "\n" not in told and len(told) < 700
    return told


def described(sound, tmp_path, change) -> str:
    """What is told of a file whose description was changed, its tensors left as they were."""

    def changed(header):
        fields = json.loads(header["__metadata__"]["polygrain"])
        change(fields)
        header["__metadata__"]["polygrain"] = json.dumps(fields)

    with_header(sound, tmp_path / "file.safetensors", changed)
    return refusal(tmp_path / "file.safetensors")


def test_a_header_of_a_terabyte_is_refused_without_allocating(tmp_path, sound):
    (tmp_path / "file.safetensors").write_bytes(struct.pack("<Q", 2**40) + sound.read_bytes()[8:])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "header too large" in refusal(tmp_path / "file.safetensors")
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 50_000 * (1024 if sys.platform == "darwin" else 1)  # 50 MB


@pytest.mark.parametrize("header", [b"not json", b"[" * 5000, b"{}", b'{"a": 3}', b"\xff\xfe", b""])
def test_a_header_that_is_no_header_is_refused(tmp_path, sound, header):
    with_header(sound, tmp_path / "file.safetensors", lambda _: header)
    refusal(tmp_path / "file.safetensors")


def _overlap(header):
    header["norm.weight"]["data_offsets"] = header["norm.bias"]["data_offsets"]


def _outside(header):
    header["norm.weight"]["data_offsets"] = [10**12, 10**12 + 128]


def _backwards(header):
    header["norm.weight"]["data_offsets"].reverse()


def _terabytes(header):
    header["norm.weight"]["shape"] = [2**40]


def _wrapping(header):
    header["norm.weight"]["shape"] = [2**62, 2**62, 32]


def _another_type(header):
    header["norm.weight"]["dtype"] = "F64"


@pytest.mark.parametrize("change", [_overlap, _outside, _backwards, _terabytes, _wrapping, _another_type])
def test_offsets_and_shapes_that_lie_are_refused(tmp_path, sound, change):
    with_header(sound, tmp_path / "file.safetensors", change)
    assert "not a sound safetensors file" in refusal(tmp_path / "file.safetensors")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"img_size": 10**12}, "img_size of its encoder is 1000000000000; it must be 65,536 or less"),
        ({"depth": 60_000}, "its encoder would have 60,000 blocks, but the file holds"),
        ({"depths": [60_000, 60_000]}, "its encoder would have 120,001 blocks"),
        ({"embed_dim": 65_000, "num_heads": 1}, "does not fit its encoder"),
        ({"img_size": 65_536, "patch_size": 1}, "does not fit its encoder"),
        ({"mlp_ratio": 1e300}, "mlp_ratio of its encoder is 1e"),
        ({"patch_size": 0}, "cannot be built"),
        ({"num_heads": 0}, "cannot be built"),
        ({"embed_dim": -8}, "cannot be built"),
        ({"norm_layer": "os.system"}, "cannot be built"),
        ({"act_layer": "__import__('os')"}, "cannot be built"),
        ({"pretrained_cfg": {"url": "http://localhost"}}, "pretrained_cfg of its encoder must be a number"),
        ({"in_chans": 4}, "give the number of channels as channels"),
        ({"features_only": True}, "cannot be"),
        ({"x" * 200: 1}, "which is no name"),
        ({"depth": "9" * 200}, "is a text of 200 characters"),
        ({"depth": [[[1]]]}, "must be a number, a word or a list"),
    ],
)
def test_arguments_that_would_allocate_run_or_confuse_are_refused(tmp_path, sound, arguments, told):
    def change(fields):
        fields["encoder"]["arguments"] = {**SMALL, **arguments}

    assert told in described(sound, tmp_path, change)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("../../etc/passwd", "is no name of a model"),
        ("hf_hub:evil/model", "is no name of a model"),
        ("vit_nothing", "cannot be built"),
        ("swin_tiny_patch4_window7_224", "cannot be built"),
        (7, "is no name of a model"),
        ("x" * 10**6, "is no name of a model"),
    ],
)
def test_a_name_that_is_no_backbone_of_ours_is_refused(tmp_path, sound, name, told):
    assert told in described(sound, tmp_path, lambda fields: fields["encoder"].update(name=name))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda fields: fields.pop("encoder"), "must hold crop_size, encoder"),
        (lambda fields: fields.update(code="import os"), "and nothing else"),
        (lambda fields: fields["encoder"].update(factory="os.system"), "must be described by name"),
        (lambda fields: fields["encoder"].update(position="sideways"), "position of its encoder is 'sideways'"),
        (lambda fields: fields["encoder"].update(checkpointing="yes"), "checkpointing of its encoder is 'yes'"),
        (lambda fields: fields["encoder"].update(channels=10**9), "its channels is 1000000000"),
        (lambda fields: fields.update(encoder=[1]), "must be described by name"),
        (lambda fields: fields.update(crop_size=-4), "its crop_size is -4"),
        (lambda fields: fields.update(crop_size=True), "its crop_size is True"),
        (lambda fields: fields.update(normalisation=3), "must hold mean and std"),
        (lambda fields: fields["normalisation"].update(std=[0, 1, 1]), "each std above 0"),
        (lambda fields: fields["normalisation"].update(mean=[float("nan")] * 3), "must be lists of numbers"),
        (lambda fields: fields.update(training=[1]), "must be a map"),
        (lambda fields: fields.update(sha256="0" * 64), "its checksum differs"),
        (lambda fields: fields["training"].update(step=4), "its checksum differs"),
    ],
)
def test_a_description_that_is_not_as_written_is_refused(tmp_path, sound, change, told):
    assert told in described(sound, tmp_path, change)


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "7", '{"a": ' * 100_000, "9" * 100_000])
def test_a_description_that_is_no_json_or_too_deep_is_refused(tmp_path, sound, text):
    def change(header):
        header["__metadata__"]["polygrain"] = text

    with_header(sound, tmp_path / "file.safetensors", change)
    refusal(tmp_path / "file.safetensors")


def test_weights_are_not_downloaded_on_the_word_of_a_file(tmp_path, sound):
    """`pretrained` in a description is never followed; what is told is that the digest differs."""
    told = described(sound, tmp_path, lambda fields: fields["encoder"].update(pretrained=True))
    assert "checksum differs" in told


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("door", DOORS)
def test_weights_that_are_no_numbers_are_refused_at_every_door(tmp_path, capsys, door, value):
    encoder = Encoder(EncoderSettings(name="vit_mini_64", arguments=SMALL))
    encoder.model.blocks[0].mlp.fc1.weight.data[0, :3] = value
    encoder.model.norm.bias.data[1] = value
    save_backbone(tmp_path / "file.safetensors", encoder, normalisation=IMAGENET)
    told = complaint(capsys, *through(door, tmp_path / "file.safetensors", tmp_path))
    assert "3 of 4,096 in blocks.0.mlp.fc1.weight, 4 in 2 tensors" in told


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_nan_in_an_official_file_is_refused_by_name(tmp_path, capsys, suffix):
    state = dict(Encoder(EncoderSettings(name="vit_mini_64", arguments=SMALL)).model.state_dict())
    state["blocks.0.attn.proj.bias"][5] = float("nan")
    file = tmp_path / f"file{suffix}"
    torch.save(state, file) if suffix == ".pth" else save_file(state, file)
    told = complaint(capsys, *through("from", file, tmp_path))
    assert "1 of 32 in blocks.0.attn.proj.bias" in told


def same(one, other) -> bool:
    left, right = one.encoder.state_dict(), other.encoder.state_dict()
    return (
        one[1:] == other[1:]
        and one.encoder.settings == other.encoder.settings
        and left.keys() == right.keys()
        and (all(torch.equal(left[key], right[key]) for key in left))
    )


def test_two_hundred_flipped_bits_are_all_found_or_change_nothing(tmp_path, sound):
    raw, honest = sound.read_bytes(), read_backbone(sound)
    (length,) = struct.unpack("<Q", raw[:8])
    generator = random.Random(0)
    harmless = 0
    for i in range(200):
        flipped = bytearray(raw)
        place = generator.randrange(8 + length) if i % 2 else generator.randrange(len(raw))  # half in the header
        flipped[place] ^= 1 << generator.randrange(8)
        (tmp_path / "file.safetensors").write_bytes(flipped)
        try:
            opened = read_backbone(tmp_path / "file.safetensors")
        except ValueError:
            continue
        assert same(opened, honest), place
        harmless += 1
    assert harmless <= 2  # such as 1e-06 for 1E-06


def test_a_file_cut_at_any_of_fifty_lengths_is_refused(tmp_path, sound):
    raw, generator = sound.read_bytes(), random.Random(1)
    for _ in range(50):
        (tmp_path / "file.safetensors").write_bytes(raw[: generator.randrange(len(raw))])
        refusal(tmp_path / "file.safetensors")


def test_a_written_backbone_can_be_read_by_those_whom_the_umask_allows(tmp_path):
    before = os.umask(0o022)
    try:
        encoder = Encoder(EncoderSettings(name="vit_mini_64", arguments=SMALL))
        save_backbone(tmp_path / "file.safetensors", encoder, normalisation=IMAGENET)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file.safetensors").stat().st_mode) == 0o644


@pytest.mark.skipif(os.name != "posix", reason="needs owners of files")
def test_a_file_of_another_user_is_told_with_its_owner(tmp_path, capsys, monkeypatch, sound):
    file = tmp_path / "file.safetensors"
    file.write_bytes(sound.read_bytes())
    file.chmod(0o600)
    if os.geteuid() == 0:  # root may read all, so that the refusal itself must be played
        opened = os.open

        def refused(path, *arguments, **named):
            if str(path) == str(file):
                raise PermissionError(13, "Permission denied", str(path))
            return opened(path, *arguments, **named)

        monkeypatch.setattr(os, "open", refused)
    else:
        file.chmod(0o000)
    told = complaint(capsys, *through("export", file, tmp_path))
    assert "Permission denied" in told and str(file) in told and f"it belongs to {file.owner()}, with mode" in told


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"holds no backbone\.safetensors; give the folder of a run"):
        open_backbone(tmp_path)
