import errno
import io
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from polygrain.data.decoding import Undecodable, decode
from polygrain.data.folders import FolderImages
from polygrain.data.images import Names
from polygrain.data.reading import patiently
from polygrain.data.scenes import Scenes
from polygrain.data.sources import DatasetImages, Images, open_images
from polygrain.data.troubles import Unreadable


def write(path: Path, value: int = 0, size: tuple[int, int] = (6, 4)) -> Path:
    """An image of one gray, so that it can be told from others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)
    return path


def values(images: Images) -> list[int]:
    return [int(images.decode(i)[0, 0, 0]) for i in range(len(images))]


def names(images: Images) -> list[str]:
    return [images.name(i) for i in range(len(images))]


def test_a_nested_folder_is_listed_in_the_order_of_its_paths(tmp_path: Path):
    for value, path in enumerate(["b.png", "a/z.bmp", "a/c/d/e.webp", "a/x.PNG", "f g/y.tiff", "a/c/b.gif"]):
        write(tmp_path / path, value)
    images = open_images(tmp_path)
    assert names(images) == ["b.png", "a/x.PNG", "a/z.bmp", "a/c/b.gif", "a/c/d/e.webp", "f g/y.tiff"]
    assert values(images) == [0, 3, 1, 5, 2, 4]
    assert images.labels() is None and images.label(0) is None and images.classes is None


def test_two_folders_that_hold_all_images_are_classes(tmp_path: Path):
    for path in ["cat/1.png", "ant/2.png", "ant/deep/3.png", "ant-eater/4.png"]:
        write(tmp_path / path)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "read.me").touch()
    images = open_images(str(tmp_path) + "/")
    labels = images.labels()
    assert images.classes == ["ant", "ant-eater", "cat"]
    assert labels is not None and labels.dtype == np.int64
    folders = [name.split("/")[0] for name in names(images)]
    assert [images.classes[label] for label in labels] == folders
    assert [images.label(i) for i in range(len(images))] == labels.tolist()


def test_an_image_beside_the_class_folders_means_there_are_no_classes(tmp_path: Path):
    for path in ["a/1.png", "b/2.png", "3.png"]:
        write(tmp_path / path)
    assert open_images(tmp_path).labels() is None


def test_one_folder_alone_is_no_class(tmp_path: Path):
    write(tmp_path / "images/1.png")
    assert open_images(tmp_path).labels() is None


def test_hidden_files_and_folders_are_left_out(tmp_path: Path):
    for path in [".ipynb_checkpoints/1.png", "a/.ipynb_checkpoints/2.png", "a/._3.png", ".4.png", "a/5.png", "b/6.png"]:
        write(tmp_path / path)
    images = open_images(tmp_path)
    assert names(images) == ["a/5.png", "b/6.png"]
    assert images.classes == ["a", "b"]


def test_links_are_followed_but_no_folder_is_entered_twice(tmp_path: Path):
    write(tmp_path / "elsewhere/1.png")
    write(tmp_path / "data/a/2.png")
    (tmp_path / "data/a/round").symlink_to(tmp_path / "data")
    (tmp_path / "data/b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data/dangling.png").symlink_to(tmp_path / "nowhere.png")
    assert names(open_images(tmp_path / "data")) == ["a/2.png", "b/1.png"]


def test_what_is_left_out_is_counted_by_reason_and_told_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write(tmp_path / "a/1.png")
    for path in ["a/logo.svg", "b.HEIC", "c.heic", "d.avif", "a/paper.pdf", ".DS_Store", "a/._1.png", "Thumbs.db"]:
        (tmp_path / path).touch()
    (tmp_path / ".ipynb_checkpoints").mkdir()
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "itself.png").symlink_to("itself.png")
    (tmp_path / "a/up").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe.png")
    images = open_images(tmp_path)
    assert names(images) == ["a/1.png"]
    loop = f"unreadable: {os.strerror(errno.ELOOP)} (errno {errno.ELOOP})"
    assert images.left_out.counts == {
        "unsupported .svg": 1, "unsupported .heic": 2, "unsupported .avif": 1, "unsupported .pdf": 1,
        "hidden files": 1, "AppleDouble files (._*)": 1, "hidden folders": 1, "other files": 1, "dangling links": 1,
        "pipes, sockets or devices": 1, "folders that links lead to once more": 1, loop: 1,
    }  # fmt: skip
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "1 dangling links ('gone.png')" in told and "2 unsupported .heic" in told


def test_hidden_files_and_those_of_other_kinds_are_left_out_in_silence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    write(tmp_path / "1.png")
    for path in [".DS_Store", "._1.png", "Thumbs.db", "read.me"]:
        (tmp_path / path).touch()
    assert open_images(tmp_path).left_out.counts.total() == 4
    assert capsys.readouterr().err == ""


def test_a_folder_that_cannot_be_listed_is_told_with_its_errno(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    write(tmp_path / "a/1.png")
    write(tmp_path / "b/2.png")
    scandir = os.scandir

    def refuse(path: bytes) -> Any:
        if path.endswith(b"/a"):  # chmod would not keep root out
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert names(open_images(tmp_path)) == ["b/2.png"]
    assert "unreadable folders: Permission denied (errno 13) ('a')" in capsys.readouterr().err


def test_an_empty_folder_is_no_class_and_undecodable_files_do_not_change_the_numbers(tmp_path: Path):
    for path in ["a/1.png", "c/2.png", "d/3.png"]:
        write(tmp_path / path)
    (tmp_path / "b").mkdir()
    (tmp_path / "c/2.png").write_bytes(b"")
    images = open_images(tmp_path)
    assert images.classes == ["a", "c", "d"] and [images.label(i) for i in range(3)] == [0, 1, 2]


def test_a_fingerprint_knows_names_and_order_but_not_the_place(tmp_path: Path):
    for root in ("x", "y"):
        for path in ["a/1.png", "a/2.png"]:
            write(tmp_path / root / path)
    prints = [open_images(tmp_path / root).fingerprint() for root in ("x", "y")]
    assert prints[0] == prints[1]
    (tmp_path / "y/a/2.png").rename(tmp_path / "y/a/3.png")
    write(tmp_path / "x/a/2b.png")
    changed = [open_images(tmp_path / root).fingerprint() for root in ("x", "y")]
    assert len({prints[0], *changed}) == 3
    assert Scenes(9, seed=1).fingerprint() == Scenes(9, seed=1).fingerprint() != Scenes(9, seed=2).fingerprint()


def test_the_content_of_a_folder_is_that_of_its_pixels_wherever_they_lie(tmp_path: Path):
    def content(root: str, number: int, size: tuple[int, int] = (8, 8)) -> str:
        for path in ["1.bmp", "2.bmp"]:
            (tmp_path / root).mkdir(exist_ok=True)
            Image.new("RGB", size, (number, 0, 0)).save(tmp_path / root / path)  # as long, whatever its colour
        return open_images(tmp_path / root).content()

    assert content("x", 1) == content("y", 1)
    assert len({content("x", 1), content("x", 2), content("x", 1, (9, 9))}) == 3


def test_names_need_not_be_text(tmp_path: Path):
    odd = [b"caf\xe9.png", b"new\nline.png", "漢字.png".encode(), b"x" * 251 + b".png"]
    data = write(tmp_path / "1.png", 9).read_bytes()
    for name in odd:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(data)
    images = open_images(tmp_path)
    assert {os.fsencode(images.name(i)) for i in range(len(images))} == {*odd, b"1.png"}
    assert values(images) == [9] * 5


@pytest.mark.parametrize("content", [b"", b"<html>", None])
def test_an_undecodable_file_is_named_once_and_replaced_by_the_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None
):
    for value in range(4):
        write(tmp_path / f"{value}.png", value)
    whole = (tmp_path / "3.png").read_bytes()
    images = open_images(tmp_path)
    for path in (tmp_path / "1.png", tmp_path / "3.png"):
        path.unlink() if content is None else path.write_bytes(content)
    for _ in range(2):
        assert values(images) == [0, 2, 2, 0]
    assert images.read(3).source == 0
    assert images.broken == [1, 3]
    told = capsys.readouterr().err
    assert told.count("\n") == 2 and told.count("1.png") == 1 and told.count("3.png") == 1
    assert decode(whole)[0, 0, 0] == 3  # the file was fine before


def test_broken_images_are_counted_by_what_is_wrong_also_those_that_workers_found(tmp_path: Path):
    whole = write(tmp_path / "0.png", size=(90, 90)).read_bytes()
    for name, content in (("1", b""), ("2", b"<html>"), ("3", whole[: len(whole) // 2]), ("4", b""), ("5", whole)):
        (tmp_path / f"{name}.png").write_bytes(content)
    images = open_images(tmp_path)
    (tmp_path / "5.png").unlink()
    assert images.troubles() == {}
    list(DataLoader(Decoded(images), num_workers=2, batch_size=None))
    assert images.troubles() == {"empty": 2, "truncated": 1, "not an image": 1, "unreadable": 1}


def test_an_unreadable_file_is_told_with_its_errno(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for value in range(3):
        write(tmp_path / f"{value}.png", value)
    images = open_images(tmp_path)
    (tmp_path / "0.png").unlink()
    (tmp_path / "1.png").unlink()
    os.mkfifo(tmp_path / "1.png")  # a pipe that nobody writes to would hold up whoever opens it
    assert values(images) == [2, 2, 2]
    told = capsys.readouterr().err
    assert "'0.png': No such file or directory (errno 2)" in told and "'1.png': not a regular file" in told


def test_what_may_pass_is_tried_again_and_the_rest_is_not(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("polygrain.data.reading.PAUSES", (0.0, 0.0, 0.0))
    tries: list[int] = []

    def read(number: int, good_after: int) -> bytes:
        tries.append(number)
        if len(tries) <= good_after:
            raise OSError(number, os.strerror(number))
        return b"content"

    assert patiently(lambda: read(errno.ESTALE, 3)) == b"content" and len(tries) == 4
    for number, wanted in ((errno.EIO, 4), (errno.EACCES, 1)):
        tries.clear()
        with pytest.raises(Unreadable, match=f"errno {number}"):
            patiently(lambda number=number: read(number, 99))
        assert len(tries) == wanted
    with pytest.raises(OSError, match="Too many open files"):  # no fault of the image
        patiently(lambda: read(errno.EMFILE, 99))


def test_nothing_but_undecodable_files_is_an_error_that_names_them(tmp_path: Path):
    for i in range(40):
        (tmp_path / f"{i:02}.jpg").write_bytes(b"?")
    with pytest.raises(Undecodable, match=r"32 images in a row.*'05.jpg'.*'36.jpg'"):
        open_images(tmp_path).decode(5)


def test_an_image_that_is_not_there_is_an_index_error(tmp_path: Path):
    write(tmp_path / "1.png")
    images = open_images(tmp_path)
    for i in (-1, 1):
        with pytest.raises(IndexError):
            images.decode(i)


def test_worker_processes_see_the_same_pixels_and_report_broken_files(tmp_path: Path):
    for value in range(8):
        write(tmp_path / f"{value}.png", value)
    (tmp_path / "5.png").write_bytes(b"?")
    images = open_images(tmp_path)
    loaded: list[Tensor] = list(DataLoader(Decoded(images), num_workers=2, batch_size=None))
    assert images.broken == [5]
    assert all(torch.equal(pixels, images.decode(i)) for i, pixels in enumerate(loaded))


class Decoded(Dataset[Tensor]):
    """What a loader's worker does with a source."""

    def __init__(self, images: Images) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> Tensor:
        return self.images.decode(i)


def test_a_pickled_source_gives_the_same(tmp_path: Path):
    for path in ["a/1.png", "b/2.png"]:
        write(tmp_path / path, 7)
    images = open_images(tmp_path)
    copy: Images = pickle.loads(pickle.dumps(images))
    assert names(copy) == names(images) and values(copy) == values(images) and copy.classes == images.classes


def test_packed_names_are_the_names():
    chunks = [[b"a", b"bcd"], [], [b""], [b"\xff\n", b"e" * 300]]
    packed = Names(chunks)
    assert [packed[i] for i in range(len(packed))] == [name for chunk in chunks for name in chunk]


def test_the_index_of_a_folder_costs_its_names_and_13_bytes_an_image(tmp_path: Path):
    for i in range(100):
        for folder in "ab":
            write(tmp_path / folder / f"{i:03}.png", size=(1, 1))
    images = FolderImages(tmp_path)
    assert images.nbytes == 200 * (len("a/000.png") + 8 + 4 + 1) + 8


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("photo", "did you mean '{}/photos'"),
        ("photos/2023/x", "'{}/photos' is there, '2023' is not in it"),
        ("photos/sumer", "did you mean '{}/photos/summer'"),
        ("photos/summer/1.png", "is a file; give a folder"),
        ("empty", "no image in .*looked for .jpg, .jpeg"),
        ("texts", "it holds other files: 2 .txt, 1 without suffix"),
        ("shards", "it holds 1 .tar: for shards give '{}/shards/\\*.tar'"),
        ("shards/b.tar", "no shard '{}/shards/b.tar'; did you mean '{}/shards/a.tar'"),
        ("shards/{a,b}.tar", "no shard '{}/shards/b.tar', asked for by '{}/shards/{{a,b}}.tar'"),
        ("shards/*-x.tar", "no shard '{}/shards/\\*-x.tar'"),
    ],
)
def test_a_source_that_is_not_there_is_one_clear_line(tmp_path: Path, name: str, message: str):
    write(tmp_path / "photos/summer/1.png")
    for path in ["empty", "texts", "shards"]:
        (tmp_path / path).mkdir()
    for path in ["texts/a.txt", "texts/b.txt", "texts/c", "shards/a.tar"]:
        (tmp_path / path).touch()
    with pytest.raises(
        ValueError, match=message.replace("{}", str(tmp_path)).replace("{{", r"\{").replace("}}", r"\}")
    ) as error:
        open_images(tmp_path / name)
    assert "\n" not in str(error.value)


def test_scenes_are_opened_by_name():
    images = open_images("scenes:30:32:5")
    assert isinstance(images, Scenes)
    assert (len(images), images.size, images.seed) == (30, 32, 5)
    assert len(open_images("scenes:12")) == 12
    for wrong in ("scenes:many", "scenes:1:2:3:4", "scenes:", "scenes:0"):
        with pytest.raises(ValueError, match="scenes"):
            open_images(wrong)
    with pytest.raises(ValueError, match="did you mean 'scenes'"):
        open_images("scnes")


class Items(Dataset[Any]):
    def __init__(self, *items: Any) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> Any:
        if isinstance(self.items[i], OSError):
            raise self.items[i]
        return self.items[i]


def test_datasets_yield_images_in_any_of_the_layouts():
    wanted = torch.arange(2 * 4 * 3, dtype=torch.uint8).reshape(2, 4, 3)  # (H, W, 3)
    gray = wanted[..., 0]
    images = open_images(
        Items(wanted.permute(2, 0, 1), wanted, Image.fromarray(wanted.numpy()), gray, gray[None], gray[..., None])
    )
    for i in range(3):
        assert torch.equal(images.decode(i), wanted.permute(2, 0, 1))
    for i in range(3, 6):
        assert torch.equal(images.decode(i), gray.expand(3, 2, 4))
    assert images.labels() is None


def test_a_dataset_may_have_labels_of_any_whole_number_type():
    image = torch.zeros(3, 2, 2, dtype=torch.uint8)
    images = open_images(Items((image, 3), (image, np.int32(1)), (image, torch.tensor(2)), (image,), (image, "text")))
    assert [images.label(i) for i in range(5)] == [3, 1, 2, None, None]
    labels = images.labels()
    assert labels is not None and labels.tolist() == [3, 1, 2, -1, -1]


def test_what_is_no_label_is_left_alone():
    image = torch.zeros(3, 2, 2, dtype=torch.uint8)
    for other in ({"boxes": []}, "a dog", 0.5, torch.zeros(4)):
        assert open_images(Items((image, other))).labels() is None


def test_targets_of_a_dataset_are_taken_without_reading_images():
    class Labelled(Items):
        targets = (5, 6)
        classes = ("a", "b")

    image = torch.zeros(3, 2, 2, dtype=torch.uint8)
    dataset = Labelled((image, 5), OSError("never read"))
    images = open_images(dataset)
    labels = images.labels()
    assert labels is not None and labels.tolist() == [5, 6]
    assert images.classes == ["a", "b"]


def test_an_unreadable_item_of_a_dataset_is_replaced(capsys: pytest.CaptureFixture[str]):
    image = torch.full((3, 2, 2), 7, dtype=torch.uint8)
    images = open_images(Items(image, OSError("disk on fire")))
    assert torch.equal(images.decode(1), image)
    assert "cannot decode 'Items[1]': disk on fire" in capsys.readouterr().err


def test_a_lazily_opened_picture_cut_short_is_replaced():
    file = io.BytesIO()
    Image.effect_noise((64, 64), 90).save(file, "PNG")
    cut = Image.open(io.BytesIO(file.getvalue()[: len(file.getvalue()) // 2]))
    images = open_images(Items(Image.new("L", (2, 2), 7), cut))
    assert images.decode(1)[0, 0, 0] == 7


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (torch.zeros(3, 2, 2), r"Items\[0\] is a torch.float32 tensor; give Pillow images or uint8"),
        ({"image": 1}, r"Items\[0\] is a dict"),
        (torch.zeros(5, 2, 2, dtype=torch.uint8), r"shape \(5, 2, 2\)"),
    ],
)
def test_a_dataset_of_something_else_is_refused_at_once(item: object, message: str):
    with pytest.raises(ValueError, match=message):
        open_images(Items(item))


def test_a_stream_and_an_empty_dataset_are_refused():
    class Stream(IterableDataset[int]):
        def __iter__(self) -> Iterator[int]:
            return iter(())

    with pytest.raises(ValueError, match="map-style"):
        open_images(Stream())
    with pytest.raises(ValueError, match="empty"):
        open_images(Items())


def test_an_open_source_is_itself(tmp_path: Path):
    write(tmp_path / "1.png")
    images = open_images(tmp_path)
    assert open_images(images) is images
    assert not isinstance(images, DatasetImages)
