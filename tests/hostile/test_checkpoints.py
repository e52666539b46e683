"""Checkpoints from strangers: nothing in them runs, nothing is allocated on their word, and one line says why."""

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

import polygrain
from polygrain.weights.reading import read_checkpoint
from tests.hostile.doors import DOORS, complaint, through
from tests.hostile.payloads import checkpoint, doubled, payloads

KINDS = ("os.system", "eval", "exec", "nested pickle", "nested bytes", "subprocess", "call inside a Namespace")
REACHES = {
    "os.system": "system",
    "eval": "eval",
    "exec": "exec",
    "nested pickle": "loads",
    "nested bytes": "torch.storage._load_from_bytes",
    "subprocess": "check_call",
    "call inside a Namespace": "system",
}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_payload_never_runs_and_is_named(tmp_path, kind, zipped):
    canary = tmp_path / "canary"
    file = tmp_path / "file.pth"
    torch.save(checkpoint(payloads(canary)[kind]), file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match="refused: opening it would reach for") as caught:
        read_checkpoint(file)
    assert REACHES[kind] in str(caught.value) and "safetensors" in str(caught.value)
    assert "\n" not in str(caught.value) and not canary.exists()
    torch.load(file, weights_only=False)  # the payload is live: opened in the ordinary way, it runs
    assert canary.exists()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_bare_pickle_of_any_protocol_is_refused(tmp_path, protocol):
    canary = tmp_path / "canary"
    (tmp_path / "file.pth").write_bytes(pickle.dumps(payloads(canary)["os.system"], protocol=protocol))
    with pytest.raises(ValueError, match=r"would reach for '(posix|nt)\.system'"):
        read_checkpoint(tmp_path / "file.pth")
    assert not canary.exists()


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_every_door_refuses_a_payload_in_one_line(tmp_path, capsys, door, zipped):
    canary = tmp_path / "canary"
    file = tmp_path / "file.pth"
    torch.save(checkpoint(payloads(canary)["os.system"]), file, _use_new_zipfile_serialization=zipped)
    told = complaint(capsys, *through(door, file, tmp_path))
    assert str(file) in told and "system" in told and not canary.exists()


@pytest.mark.parametrize("door", DOORS)
def test_every_door_refuses_a_pickle_that_is_named_safetensors(tmp_path, capsys, door):
    canary = tmp_path / "canary"
    file = tmp_path / "file.safetensors"
    file.write_bytes(pickle.dumps(payloads(canary)["os.system"]))
    told = complaint(capsys, *through(door, file, tmp_path))
    assert "pickle or an archive by another name" in told and not canary.exists()


@pytest.mark.parametrize("door", DOORS)
def test_every_door_refuses_a_distributed_checkpoint(tmp_path, capsys, door):
    canary = tmp_path / "canary"
    (tmp_path / "dcp").mkdir()
    (tmp_path / "dcp" / ".metadata").write_bytes(pickle.dumps(payloads(canary)["os.system"]))
    told = complaint(capsys, *through(door, tmp_path / "dcp", tmp_path))
    assert "opened as a pickle and can run code" in told and "dcp_to_torch" in told and not canary.exists()


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("suffix", [".npy", ".npz", ".pth"])
def test_every_door_refuses_arrays_of_objects(tmp_path, capsys, door, suffix):
    canary = tmp_path / "canary"
    objects = np.array([payloads(canary)["os.system"]], dtype=object)
    written = io.BytesIO()
    np.savez(written, weights=objects) if suffix == ".npz" else np.save(written, objects)
    (tmp_path / f"file{suffix}").write_bytes(written.getvalue())
    complaint(capsys, *through(door, tmp_path / f"file{suffix}", tmp_path))
    assert not canary.exists()


class Scripted(torch.nn.Module):
    def forward(self, x):
        return x + 1


@pytest.mark.filterwarnings("ignore:.torch.jit")
def test_torchscript_is_refused_as_a_program(tmp_path):
    torch.jit.save(torch.jit.trace(Scripted(), torch.zeros(1)), tmp_path / "file.pth")
    with pytest.raises(ValueError, match="it is TorchScript, which is a program"):
        read_checkpoint(tmp_path / "file.pth")


def test_names_in_torchs_own_list_that_allocate_on_demand_are_not_on_ours(tmp_path):
    for call in (bytearray, torch.Tensor, torch.FloatTensor):
        file = tmp_path / "file.pth"
        torch.save(checkpoint(_Asks(call)), file)
        with pytest.raises(ValueError, match="would reach for"):
            read_checkpoint(file)


class _Asks:
    """Pickles as a call that would allocate a gigabyte."""

    def __init__(self, function):
        self.function = function

    def __reduce__(self):
        return self.function, (2**30,)


def rezipped(source, target, change, compression=zipfile.ZIP_STORED):
    """The same archive, with `change(name, content)` in place of each member."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for member in old.infolist():
            new.writestr(member.filename, change(member.filename, old.read(member)))


def test_a_compressed_archive_is_refused_before_it_is_unpacked(tmp_path):
    torch.save({"a": torch.zeros(2**18)}, tmp_path / "plain.pth")
    rezipped(tmp_path / "plain.pth", tmp_path / "file.pth", lambda name, content: content, zipfile.ZIP_DEFLATED)
    assert (tmp_path / "file.pth").stat().st_size < 10_000
    with pytest.raises(ValueError, match=r"it would unpack to 1,0\d\d,\d\d\d bytes"):
        read_checkpoint(tmp_path / "file.pth")


def claims(shape, stride):
    """A tensor of four numbers that says it has another shape."""
    return torch.zeros(4).as_strided(shape, stride)


def test_a_tensor_that_repeats_its_numbers_is_not_made_real(tmp_path):
    torch.save({"a": claims((2**20, 2**20), (0, 0))}, tmp_path / "file.pth")
    with pytest.raises(ValueError, match=r"a claims 4,398,046,511,104 bytes .*, the file has \d+ for it"):
        read_checkpoint(tmp_path / "file.pth")


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_tensor_larger_than_its_file_is_refused(tmp_path, zipped):
    """Shape (1000,) becomes (31000,) in the pickle; torch's reader would lengthen the storage and hand out garbage."""
    torch.save({"a": torch.zeros(1000)}, tmp_path / "plain.pth", _use_new_zipfile_serialization=zipped)
    short, long = b"M\xe8\x03\x85", b"M\x18\x79\x85"  # BININT2 and TUPLE1
    if zipped:
        rezipped(tmp_path / "plain.pth", tmp_path / "file.pth", lambda name, content: content.replace(short, long))
    else:
        (tmp_path / "file.pth").write_bytes((tmp_path / "plain.pth").read_bytes().replace(short, long))
    with pytest.raises(ValueError, match=r"file\.pth"):
        read_checkpoint(tmp_path / "file.pth")


def test_a_list_that_doubles_itself_thirty_times_is_refused_at_once(tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "plain.pth")
    rezipped(
        tmp_path / "plain.pth",
        tmp_path / "file.pth",
        lambda name, content: doubled(31) if name.endswith("data.pkl") else content,
    )
    with pytest.raises(ValueError, match="more than 1,000,000 entries"):
        read_checkpoint(tmp_path / "file.pth")


def test_maps_nested_beyond_reason_are_refused(tmp_path):
    deep: object = torch.zeros(1)
    for _ in range(100):
        deep = {"a": deep}
    torch.save(deep, tmp_path / "file.pth")
    with pytest.raises(ValueError, match="more than 32 within each other"):
        read_checkpoint(tmp_path / "file.pth")


def test_two_entries_that_would_get_one_name_are_refused(tmp_path):
    torch.save({"a": {"b": torch.zeros(1)}, "a/b": torch.ones(1)}, tmp_path / "file.pth")
    with pytest.raises(ValueError, match="holds two tensors named a/b"):
        read_checkpoint(tmp_path / "file.pth")


def test_a_name_that_would_steer_the_terminal_is_refused(tmp_path):
    torch.save({"a\x1b[2J": torch.zeros(1)}, tmp_path / "file.pth")
    with pytest.raises(ValueError, match=r"it names a tensor 'a\\x1b\[2J'"):
        read_checkpoint(tmp_path / "file.pth")


def test_a_file_cut_anywhere_is_one_clear_error(tmp_path):
    whole = io.BytesIO()
    torch.save({"a": torch.zeros(300), "b": {"c": torch.ones(2)}}, whole)
    for zipped in (True, False):
        whole = io.BytesIO()
        torch.save({"a": torch.zeros(300)}, whole, _use_new_zipfile_serialization=zipped)
        content = whole.getvalue()
        for length in range(0, len(content) - 1, max(1, len(content) // 60)):
            (tmp_path / "file.pth").write_bytes(content[:length])
            with pytest.raises(ValueError, match=r"file\.pth") as caught:
                read_checkpoint(tmp_path / "file.pth")
            assert "\n" not in str(caught.value)


def test_noise_for_a_pickle_is_one_clear_error(tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "plain.pth")
    generator = np.random.default_rng(0)
    for _ in range(60):
        noise = b"\x80\x02" + generator.integers(0, 256, 40, dtype=np.uint8).tobytes() + b"."
        rezipped(
            tmp_path / "plain.pth",
            tmp_path / "file.pth",
            lambda name, content, noise=noise: noise if name.endswith("data.pkl") else content,
        )
        with pytest.raises(ValueError, match=r"file\.pth") as caught:
            read_checkpoint(tmp_path / "file.pth")
        assert "\n" not in str(caught.value)


def test_no_module_of_ours_unpickles_by_itself():
    """torch.load is always told to read weights alone, numpy never to read objects, and pickle is not imported, but
    for the ground truth of Oxford and Paris, which a reader takes that knows four names (tests of its own)."""
    for path in Path(polygrain.__file__).parent.rglob("*.py"):
        text = path.read_text().replace("import pickletools", "")
        if path.name == "ground_truth.py":
            assert text.count("pickle.") == 2 and "class _Plain(pickle.Unpickler)" in text
            text = text.replace("import pickle", "")
        for line in text.splitlines():
            assert "torch.load(" not in line or "weights_only=True" in line, path
            assert "np.load(" not in line or "allow_pickle=False" in line, path
        for word in (
            "import pickle",
            "allow_pickle=True",
            "weights_only=False",
            "yaml.unsafe",
            "yaml.full",
            "shell=True",
        ):
            assert word not in text, (path, word)
