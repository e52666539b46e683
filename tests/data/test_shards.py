import io
import json
import pickle
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from polygrain.data.shards import OPEN_FILES, expand
from polygrain.data.sources import Images, open_images
from polygrain.data.tar import members
from tests.data.test_sources import Decoded, names


def png(value: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (5, 3), value).save(file, "PNG")
    return file.getvalue()


def write(path: Path, files: dict[str, bytes], kind: int = tarfile.PAX_FORMAT, mtime: float = 0) -> Path:
    with tarfile.open(path, "w", format=kind) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(content), mtime
            tar.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("name", ["imagenette", "caltech", "flowers17"])
@pytest.mark.parametrize("split", ["train", "val"])
def test_real_shards_give_the_pixels_and_labels_that_the_standard_library_reads(
    real_images: Path, name: str, split: str
):
    path = real_images / name / f"{split}.tar"
    with tarfile.open(path) as tar:
        content = {member.name: file.read() for member in tar if (file := tar.extractfile(member))}
    images = open_images(path)
    photos = [member for member in content if member.endswith(".jpg")]
    assert names(images) == [f"{path}:{photo}" for photo in photos]
    labels = images.labels()
    assert labels is not None
    assert labels.tolist() == [int(content[photo[:-3] + "cls"]) for photo in photos]
    assert labels.max() + 1 == len(json.loads((path.parent / "classes.json").read_text()))
    for i in np.random.default_rng(0).permutation(len(images))[:40].tolist():
        wanted = np.asarray(Image.open(io.BytesIO(content[photos[i]])).convert("RGB"))
        assert (images.decode(i).permute(1, 2, 0).numpy() == wanted).all()
    assert not images.broken


def test_a_glob_of_real_shards_is_one_source(real_images: Path):
    both = open_images(f"{real_images}/imagenette/*.tar")
    assert len(both) == 850
    train, val = (open_images(real_images / "imagenette" / f"{split}.tar") for split in ("train", "val"))
    assert torch.equal(both.decode(600), val.decode(0)) and torch.equal(both.decode(599), train.decode(599))
    assert np.array_equal(both.labels(), np.concatenate([train.labels(), val.labels()]))


def test_worker_processes_and_pickled_copies_read_the_same_shards(real_images: Path):
    images = open_images(real_images / "imagenette" / "val.tar")
    wanted = [images.decode(i) for i in range(len(images))]  # the files are open before the workers start
    for seen in (images, pickle.loads(pickle.dumps(images))):
        loaded = list(DataLoader(Decoded(seen), num_workers=2, batch_size=None))
        assert all(map(torch.equal, loaded, wanted))


LONG = "d" * 90 + "/" + "é" * 60
FILES = {"a.png": b"", "b.cls": b"7", LONG + ".png": b"x" * 513, "b.png": b"y" * 512, "c/d.png": b"z" * 2000}


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("mtime", [0, 1.5])
def test_members_lie_where_the_standard_library_finds_them(tmp_path: Path, kind: int, mtime: float):
    files = {name.replace("é", "e"): content for name, content in FILES.items()}
    if kind != tarfile.USTAR_FORMAT:
        files |= FILES | {"n" * 300 + ".png": b"long"}
    path = write(tmp_path / "x.tar", files, kind, mtime)
    with tarfile.open(path) as tar:
        wanted = [(member.name.encode(), member.offset_data, member.size) for member in tar]
    found = list(members(path))
    assert [tuple(member) for member, _ in found] == wanted
    assert [start for _, start in found] == [content[:512] for content in files.values()]


def test_folders_and_links_in_an_archive_are_no_members(tmp_path: Path):
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name, kind in (("d", tarfile.DIRTYPE), ("d/l.png", tarfile.SYMTYPE), ("d/h.png", tarfile.LNKTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "d/a.png"
            tar.addfile(info)
        tar.addfile(tarfile.TarInfo("d/a.png"))
    assert [member.name for member, _ in members(tmp_path / "x.tar")] == [b"d/a.png"]


def test_labels_belong_to_keys_wherever_they_stand(tmp_path: Path):
    write(tmp_path / "0.tar", {"a.cls": b"3\n", "x/a.png": png(1), "a.png": png(2), "b.PNG": png(3), "x/a.cls": b" 4"})
    images = open_images(tmp_path / "0.tar")
    labels = images.labels()
    assert labels is not None and labels.tolist() == [4, 3, -1]
    assert [images.label(i) for i in range(3)] == [4, 3, None]
    assert [int(images.decode(i)[0, 0, 0]) for i in range(3)] == [1, 2, 3]


def test_other_fields_of_a_sample_are_left_alone_and_said_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write(tmp_path / "0.tar", {"a.jpg": png(1), "a.mask.png": png(2), "a.json": b"{}", "._a.jpg": b"", ".b.png": b""})
    images = open_images(tmp_path / "0.tar")
    assert names(images) == [f"{tmp_path}/0.tar:a.jpg"]
    assert images.labels() is None
    assert "left out 1 members" in capsys.readouterr().err


def test_more_shards_than_open_files_are_read_in_any_order(tmp_path: Path):
    count = OPEN_FILES + 6
    for i in range(count):
        write(tmp_path / f"{i:03}.tar", {f"{i}-{j}.png": png(2 * i + j) for j in range(2)})
    images = open_images(f"{tmp_path}/{{000..{count - 1:03}}}.tar")
    order = np.random.default_rng(0).permutation(2 * count).tolist()
    assert [int(images.decode(i)[0, 0, 0]) for i in order] == order


def test_braces_and_globs_are_expanded(tmp_path: Path):
    for name in ["train-008.tar", "train-009.tar", "train-010.tar", "val-1.tar", "val-2.tar"]:
        (tmp_path / name).touch()

    def found(pattern: str) -> list[str]:
        return [path.name for path in expand(f"{tmp_path}/{pattern}")]

    assert found("train-{008..010}.tar") == ["train-008.tar", "train-009.tar", "train-010.tar"]
    assert sorted(found("{val-{1..2},train-009}.tar")) == ["train-009.tar", "val-1.tar", "val-2.tar"]
    assert found("val-{1,*}.tar") == ["val-1.tar", "val-2.tar"]
    assert found("{val,train}-*.tar") == ["val-1.tar", "val-2.tar", "train-008.tar", "train-009.tar", "train-010.tar"]
    for wrong in ("train-{008..011}.tar", "test-*.tar", "train-{010..008}.tar"):
        with pytest.raises(ValueError, match=r"011|test|smaller number first"):
            found(wrong)


def test_a_shard_cut_short_is_an_error_that_names_it(tmp_path: Path):
    path = write(tmp_path / "0.tar", {f"{i}.png": b"x" * 5000 for i in range(3)})
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(ValueError, match=r"0.tar' is cut short: b?'1.png'"):
        open_images(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x1f\x8b" + b"x" * 600, "not a tar archive, or compressed"),
        (b"", "no image in 1 shards"),
        (b"short", "not a tar archive"),
    ],
)
def test_what_is_no_archive_is_an_error(tmp_path: Path, content: bytes, message: str):
    (tmp_path / "0.tar").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        open_images(tmp_path / "0.tar")


def test_a_shard_without_an_end_or_with_more_behind_it_is_refused(tmp_path: Path):
    path = write(tmp_path / "0.tar", {f"{i}.png": png(i) for i in range(3)})
    whole = path.read_bytes()
    content = whole.rstrip(b"\0")
    members_end = (len(content) + 511) // 512 * 512
    for data, message in (
        (whole[: members_end - 1024], "lacks the zeros that end an archive"),  # cut between two members: two remain
        (whole + whole, "several archives in one file"),
        (whole[:1024] + bytes(1024) + whole[2048:], "damaged, or several archives"),  # a lost page
        (whole[:1024] + whole[1536:], "broken at byte"),
    ):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=message):
            open_images(path)
    path.write_bytes(whole[:members_end] + bytes(512))  # one block of zeros is the least
    assert len(open_images(path)) == 3


def hostile(field: slice, value: bytes, kind: bytes = b"0", content: bytes = b"") -> bytes:
    """An archive of one member, a field of its header replaced and the checksum made to fit."""
    info = tarfile.TarInfo("a.png")
    info.size, info.type = len(content), kind
    header = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    header[field] = value
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    return bytes(header) + content.ljust(-(-len(content) // 512) * 512, b"\0") + bytes(1024)


@pytest.mark.parametrize(
    "data",
    [
        hostile(slice(124, 136), b"-0000001000\0"),  # would lead backwards, and round and round
        hostile(slice(124, 136), b"77777777777\0"),
        hostile(slice(124, 136), b"\x80" + b"\xff" * 11),
        hostile(slice(0, 0), b"", b"x", b"0 path=b.png\n"),  # a record of no length, without end
        hostile(slice(0, 0), b"", b"x", b"-9 path=b.png\n"),
        hostile(slice(0, 0), b"", b"x", b"999 path=b.png\n"),
        hostile(slice(0, 0), b"", b"x", b"15 size=-100000\n"),
        hostile(slice(0, 0), b"", b"L", b"n" * (2**20 + 1)),
    ],
)
def test_a_hostile_header_is_refused_at_once(tmp_path: Path, data: bytes):
    (tmp_path / "0.tar").write_bytes(data)
    with pytest.raises(ValueError, match=r"0\.tar"):
        open_images(tmp_path / "0.tar")


def test_a_path_that_leads_out_of_the_archive_is_a_name_like_any_other(tmp_path: Path):
    root = tmp_path / "deep" / "data"
    root.mkdir(parents=True)
    names_there = ["../../x.png", "/etc/x.png", "a\nb.png", "c\x1b[31m.png"]
    path = write(root / "0.tar", {name: png(i) for i, name in enumerate(names_there)})
    images = open_images(path)
    assert names(images) == [f"{path}:{name}" for name in names_there]
    assert [int(images.decode(i)[0, 0, 0]) for i in range(4)] == [0, 1, 2, 3]
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [path]


def test_a_shard_written_anew_while_it_is_read_gives_no_wrong_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = write(tmp_path / "0.tar", {"a.png": png(1), "b.png": png(2)})
    write(tmp_path / "1.tar", {"c.png": png(3)})
    images = open_images(f"{tmp_path}/*.tar")
    write(path, {"a.png": png(7), "b.png": png(8), "bb.png": png(9)}).touch()
    assert [int(images.decode(i)[0, 0, 0]) for i in range(3)] == [3, 3, 3]
    assert images.troubles() == {"unreadable": 2} and "changed since it was listed" in capsys.readouterr().err


def test_a_shard_deleted_while_it_is_read_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write(tmp_path / "0.tar", {"a.png": png(1)})
    write(tmp_path / "1.tar", {"b.png": png(2)})
    images = open_images(f"{tmp_path}/*.tar")
    (tmp_path / "0.tar").unlink()
    assert int(images.decode(0)[0, 0, 0]) == 2
    assert "0.tar:a.png': No such file or directory (errno 2)" in capsys.readouterr().err


def test_a_fingerprint_of_shards_knows_their_members_and_not_where_they_lie(tmp_path: Path):
    (tmp_path / "x").mkdir()
    files = {"a.png": png(1), "a.cls": b"1", "b.png": png(2)}
    prints = [
        open_images(write(path, files)).fingerprint() for path in (tmp_path / "0.tar", tmp_path / "x" / "other.tar")
    ]
    assert prints[0] == prints[1]
    changes = [{"a.cls": b"2"}, {"b.png": png(3) + bytes(3)}, {"c.png": png(2)}]
    changed = [open_images(write(tmp_path / "0.tar", files | change)).fingerprint() for change in changes]
    assert len({prints[0], *changed}) == 4


def test_the_content_of_shards_is_that_of_their_members_wherever_they_lie(tmp_path: Path):
    (tmp_path / "x").mkdir()
    first, moved, other = (
        open_images(write(tmp_path / path, {"a.bmp": bmp})).content()
        for path, bmp in (("0.tar", bytes(64)), ("x/other.tar", bytes(64)), ("1.tar", bytes(63) + b"1"))
    )
    assert first == moved != other


def test_a_label_that_is_no_number_is_an_error(tmp_path: Path):
    with pytest.raises(ValueError, match=r"label b'cat' of 'a.cls'"):
        open_images(write(tmp_path / "0.tar", {"a.png": png(0), "a.cls": b"cat"}))


def test_an_undecodable_member_is_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    images: Images = open_images(write(tmp_path / "0.tar", {"a.png": b"?", "b.png": png(5)}))
    assert images.decode(0)[0, 0, 0] == 5
    assert images.broken == [0] and "0.tar:a.png" in capsys.readouterr().err


def test_an_npz_becomes_shards_with_the_labels_asked_for(tmp_path: Path):
    script = Path(__file__).parents[2] / "scripts" / "npz_to_shards"
    files = [png(i) for i in range(5)]
    offset = np.cumsum([0] + [len(file) for file in files])
    data = np.frombuffer(b"".join(files), np.uint8)
    np.savez(tmp_path / "x.npz", data=data, offset=offset, fine=np.arange(5, 10), coarse=np.arange(5) % 2)
    options = ["--labels", "coarse", "--per-shard", "2"]
    subprocess.run([sys.executable, script, tmp_path / "x.npz", tmp_path / "out" / "s", *options], check=True)
    images = open_images(f"{tmp_path}/out/s-{{000000..000002}}.tar")
    labels = images.labels()
    assert labels is not None and labels.tolist() == [0, 1, 0, 1, 0]
    assert [int(images.decode(i)[0, 0, 0]) for i in range(5)] == [0, 1, 2, 3, 4]
