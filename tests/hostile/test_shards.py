"""Shards from strangers are read in place: nothing is unpacked, no member is more than a picture or a number."""

import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from polygrain.data.sources import open_images
from tests.hostile.doors import complaint
from tests.hostile.payloads import payloads


def png(value: int = 7) -> bytes:
    written = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(written, "PNG")
    return written.getvalue()


def shard(path, *members):
    """Members are (name, content) or (name, type, where a link leads)."""
    with tarfile.open(path, "w") as archive:
        for name, *what in members:
            info = tarfile.TarInfo(name)
            content = what[0] if isinstance(what[0], bytes) and len(what) == 1 else b""
            if not content:
                info.type, info.linkname = what
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def files(folder) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["../../escaped.png", "/escaped.png", "a/../../../escaped.png"])
def test_a_member_that_leads_out_of_the_archive_is_a_name_and_nothing_is_written(tmp_path, monkeypatch, name):
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    images = open_images(str(shard(inside / "s.tar", (name, png()))))
    assert int(images.decode(0).float().mean()) == 7
    assert files(tmp_path) == {"s.tar"} and not Path("/escaped.png").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
def test_links_and_devices_are_no_pictures(tmp_path, kind):
    (tmp_path / "secret.png").write_bytes(png(200))
    path = shard(tmp_path / "s.tar", ("a.png", png()), ("b.png", kind, str(tmp_path / "secret.png")))
    images = open_images(str(path))
    assert len(images) == 1 and int(images.decode(0).float().mean()) == 7


def test_pickles_beside_pictures_are_never_opened(tmp_path):
    canary = tmp_path / "canary"
    payload = pickle.dumps(payloads(canary)["os.system"])
    fields = [(f"a.{field}", payload) for field in ("pyd", "pkl", "pickle", "pth", "pt", "npy", "json", "txt")]
    images = open_images(str(shard(tmp_path / "s.tar", ("a.png", png()), *fields)))
    images.decode(0)
    assert len(images) == 1 and not canary.exists()


@pytest.mark.parametrize("field", ["png", "jpg", "cls"])
def test_a_pickle_by_another_name_is_refused_and_never_opened(tmp_path, capsys, field):
    canary = tmp_path / "canary"
    payload = pickle.dumps(payloads(canary)["os.system"])
    members = [("a.png", png()), ("a.cls", payload)] if field == "cls" else [(f"a.{field}", payload)]
    path = shard(tmp_path / "s.tar", *members)
    complaint(capsys, "pretrain", path, "--out", tmp_path / "run", "--workers", 0)
    assert not canary.exists()


def test_an_array_of_objects_is_refused_and_never_opened(tmp_path):
    canary = tmp_path / "canary"
    written = io.BytesIO()
    np.save(written, np.array([payloads(canary)["os.system"]], dtype=object))
    (tmp_path / "arrays").mkdir()
    (tmp_path / "arrays" / "a.npy").write_bytes(written.getvalue())
    with pytest.raises((ValueError, OSError)):
        open_images(str(tmp_path / "arrays"), channels=1).decode(0)
    assert not canary.exists()
