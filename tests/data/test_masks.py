import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from polygrain.data.mask_lists import open_train_and_val, read_split
from polygrain.data.masks import class_names, decode_ids, open_masked
from polygrain.data.scenes import MASK_CLASSES

IDS = (np.arange(6 * 8).reshape(6, 8) % 5).astype(np.uint8)


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def write(root, names, *, masks=None, size=(8, 6)):
    for name in names:
        path = root / "images" / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(Image.new("RGB", size, "red"), "JPEG"))
    for name in names if masks is None else masks:
        path = root / "masks" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(Image.fromarray(IDS)))
    return root


def pack(root, file):
    with tarfile.open(file, "w") as tar:
        for path in sorted(p for p in root.rglob("*") if p.is_file()):
            tar.add(path, path.relative_to(root))
    return file


def test_a_folder_and_its_archive_hold_the_same_pairs(tmp_path):
    root = write(tmp_path / "set", ["b", "town/a"])
    folder, archive = open_masked(root), open_masked(pack(root, tmp_path / "set.tar"))
    for masked in (folder, archive):
        assert sorted(entry.name for entry in masked.entries) == ["b", "town/a"]
        assert masked.image(0).shape == (3, 6, 8)
        assert np.array_equal(masked.ids(1), IDS)
        assert masked.stored(0).size == (6, 8)


def test_folders_may_bear_the_names_of_pascal_voc(tmp_path):
    write(tmp_path, ["a"])
    (tmp_path / "images").rename(tmp_path / "JPEGImages")
    (tmp_path / "masks").rename(tmp_path / "SegmentationClass")
    assert len(open_masked(tmp_path)) == 1


def palette(depth):
    image = Image.fromarray((IDS.astype(int) % 2**depth).astype(np.uint8))
    image.putpalette([7, 7, 7] * 2**depth)
    return encoded(image, bits=depth)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (encoded(Image.fromarray(IDS)), IDS),
        (palette(8), IDS),
        (palette(2), IDS % 4),
        (palette(1), IDS % 2),
        (encoded(Image.fromarray(IDS.astype(np.uint16) + 300)), IDS.astype(int) + 300),
        (encoded(Image.fromarray(IDS.astype(bool))), IDS > 0),
    ],
    ids=["gray", "palette", "palette of 2 bits", "palette of 1 bit", "16 bits", "black and white"],
)
def test_ids_are_read_as_they_were_written(data, expected):
    assert np.array_equal(decode_ids(data, "m"), expected)


def gray_png(values, bits):
    """A PNG of few-bit gray, written by hand: Pillow cannot."""
    import struct
    import zlib

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = b""
    for row in values:
        packed = "".join(f"{value:0{bits}b}" for value in row)
        rows += b"\0" + bytes(int(packed[i : i + 8].ljust(8, "0"), 2) for i in range(0, len(packed), 8))
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], bits, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("bits", [2, 4])
def test_gray_of_few_bits_is_not_stretched(bits):
    assert np.array_equal(decode_ids(gray_png(IDS % 2**bits, bits), "m"), IDS % 2**bits)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (encoded(Image.new("RGB", (4, 4))), r"mask 'm' holds colours \(mode RGB\)"),
        (encoded(Image.new("RGBA", (4, 4))), r"holds colours \(mode RGBA\)"),
        (encoded(Image.new("L", (4, 4)), "JPEG"), "is a JPEG, whose compression changes ids"),
        (encoded(Image.fromarray(IDS))[:-30], "cannot decode mask 'm'"),
        (b"nothing", "cannot decode mask 'm'"),
    ],
)
def test_a_mask_without_ids_is_refused(data, message):
    with pytest.raises(ValueError, match=message):
        decode_ids(data, "m")


def test_images_without_a_mask_are_counted_and_one_is_named(tmp_path):
    write(tmp_path, ["a", "b", "c"], masks=["b"])
    with pytest.raises(ValueError, match=r"2 of 3 images .* have no mask, such as 'images/a.jpg': wanted masks/a.png"):
        open_masked(tmp_path)


def test_masks_without_an_image_are_remembered(tmp_path):
    root = write(tmp_path / "set", ["a", "town/b"], masks=["a", "c", "town/b", "town/d", "road/e"])
    assert set(open_masked(root).lone) == {"masks/c.png", "masks/road/e.png", "masks/town/d.png"}
    (tmp_path / "split.json").write_text(json.dumps({"train": ["a"], "val": ["town/"]}))
    train, val = open_train_and_val(root, None, f"{tmp_path}/split.json")
    assert (train.lone, val.lone) == ((), ("masks/town/d.png",))


def test_no_name_in_common_is_said(tmp_path):
    write(tmp_path, ["a"], masks=["b"])
    with pytest.raises(ValueError, match="no name in common: there are 'a' and 'b'"):
        open_masked(tmp_path)


def test_a_folder_without_masks_is_refused(tmp_path):
    write(tmp_path, ["a"], masks=[])
    with pytest.raises(ValueError, match="no masks/ in"):
        open_masked(tmp_path)


def test_two_images_of_one_name_are_refused(tmp_path):
    write(tmp_path, ["a"])
    (tmp_path / "images" / "a.png").write_bytes(encoded(Image.new("RGB", (8, 6))))
    with pytest.raises(ValueError, match="share one name"):
        open_masked(tmp_path)


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (["sky", "sea"], (("sky", "sea"), None)),
        ({"classes": ["sky", "void"], "ignore_index": 1}, (("sky", "void"), 1)),
    ],
)
def test_names_of_classes_lie_beside_the_images(tmp_path, told, expected):
    (tmp_path / "classes.json").write_text(json.dumps(told))
    assert class_names(tmp_path) == expected
    assert class_names(tmp_path / "train.tar") == expected
    assert class_names(tmp_path / "other" / "train.tar") == (None, None)


@pytest.mark.parametrize("told", [{"names": []}, [{"id": 1}], {"classes": ["a"], "ignore_index": "void"}])
def test_other_contents_of_that_file_are_refused(tmp_path, told):
    (tmp_path / "classes.json").write_text(json.dumps(told))
    with pytest.raises(ValueError, match=r"classes\.json"):
        class_names(tmp_path)


@pytest.mark.parametrize("name", ["classes.json", "split.json"])
def test_a_json_with_a_slip_of_the_pen_is_named(tmp_path, name):
    root = write(tmp_path, ["a"])
    (root / "split.json").write_text('{"train": ["a"], "val": ["a"]}')
    (root / name).write_text('["a"\n"b"]')
    with pytest.raises(ValueError, match=rf"cannot read '.*{name}': Expecting ',' delimiter: line 2 column 1"):
        open_train_and_val(root, None, f"{root}/split.json")


def names(masked):
    return [entry.name for entry in masked.entries]


def test_lists_of_names_choose_the_images(tmp_path):
    root = write(tmp_path / "set", ["a", "b", "c"])
    (tmp_path / "train.txt").write_text("c\na\n")
    (tmp_path / "val.txt").write_text("b\n\n")
    train, val = open_train_and_val(root, None, f"{tmp_path}/train.txt,{tmp_path}/val.txt")
    assert (names(train), names(val)) == (["c", "a"], ["b"])


def test_a_split_names_images_of_archives_in_a_folder(tmp_path):
    pack(write(tmp_path / "1", ["a", "b"]), tmp_path / "train.tar")
    pack(write(tmp_path / "2", ["a"]), tmp_path / "val.tar")
    split = tmp_path / "splits.json"
    lists = {"mixed": {"train": ["train.tar:b"], "val": ["val.tar:a", "train.tar:a"]}}
    split.write_text(json.dumps(lists))
    train, val = open_train_and_val(tmp_path, None, f"{split}:mixed")
    assert (names(train), names(val)) == (["b"], ["a", "a"])
    lists["mixed"]["val"] = ["train.tar:a"]
    split.write_text(json.dumps(lists))
    assert names(open_train_and_val(tmp_path / "train.tar", None, f"{split}:mixed")[1]) == ["a"]


def test_a_name_that_ends_in_a_slash_is_all_of_a_folder(tmp_path):
    root = write(tmp_path / "set", ["training/a", "training/b", "validation/c"])
    (tmp_path / "split.json").write_text(json.dumps({"train": ["training/"], "val": ["validation/"]}))
    train, val = open_train_and_val(root, None, f"{tmp_path}/split.json")
    assert (names(train), names(val)) == (["training/a", "training/b"], ["validation/c"])


def test_an_image_that_no_list_names_needs_no_mask(tmp_path):
    root = write(tmp_path / "set", ["a", "b", "c"], masks=["a", "b"])
    (tmp_path / "split.json").write_text(json.dumps({"train": ["a"], "val": ["b"]}))
    assert len(open_train_and_val(root, None, f"{tmp_path}/split.json")[0]) == 1


@pytest.mark.parametrize(
    ("text", "split", "message"),
    [
        ('{"a": {"train": ["x"], "val": ["x"]}}', "s.json:b", r"no split 'b' in .*; it has 'a'"),
        ('{"a": {"train": ["x"], "val": ["x"]}}', "s.json", r"add the name of one, as in .*s\.json:a"),
        ('{"train": ["x"]}', "s.json", "has no lists"),
        ("3", "s.json:a", r"no split 'a' in .*; it has no splits by name"),
        ('{"train": ["y"], "val": ["x"]}', "s.json", r"'y' of .* is not in .* such as 'x'"),
        ('{"train": ["x"], "val": []}', "s.json", "is empty"),
        ("", "other.json", "no list"),
        ("", "s.txt", r"wanted two lists as train\.txt,val\.txt"),
    ],
)
def test_a_split_that_means_nothing_is_refused(tmp_path, text, split, message):
    root = write(tmp_path / "set", ["x"])
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        open_train_and_val(root, None, f"{tmp_path}/{split}")


def test_without_val_a_split_is_asked_for(tmp_path):
    with pytest.raises(ValueError, match="give --val, or --split"):
        open_train_and_val(write(tmp_path, ["x"]), None, None)


def test_the_built_in_scenes_have_masks():
    masked = open_masked("scenes:3:32")
    assert masked.classes.names == MASK_CLASSES
    assert masked.ids(2).shape == tuple(masked.image(2).shape[1:]) == (32, 32)
    assert masked.ids(2).max() < len(MASK_CLASSES)


def test_camvid_is_read_by_drive_from_its_archives(real_images):
    split = f"{real_images}/camvid/splits.json:by_drive"
    train, val = open_train_and_val(real_images / "camvid", None, split)
    assert (len(train), len(val)) == (266, 101)
    assert train.classes.ignore_index == 11
    assert val.ids(0).shape == (360, 480)
    assert val.ids(0).max() <= 11
    lists = read_split(split)
    assert names(val) == [entry.partition(":")[2] for entry in lists[1]]
