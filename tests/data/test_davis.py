import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from polygrain.data.davis import Davis, Files, palette, png, read_mask
from tests.evaluate.video.discs import write_davis


def packed(root, path):
    with tarfile.open(path, "w") as archive:
        archive.add(root, arcname=".")
    return path


def test_a_folder_and_a_tar_of_it_hold_the_same_videos(tmp_path):
    root = write_davis(tmp_path / "davis")
    folder, archive = Davis(root), Davis(packed(root, tmp_path / "davis.tar"))
    assert folder.videos == archive.videos
    assert folder.digest() == archive.digest()
    video = folder.videos[0]
    assert np.array_equal(folder.masks(video), archive.masks(video))
    assert np.array_equal(folder.frame(video, 2), archive.frame(video, 2))


def test_only_the_listed_or_chosen_sequences_are_read(tmp_path):
    root = write_davis(tmp_path, names=("a", "b", "c"), listed=("b", "a"))
    assert [video.name for video in Davis(root).videos] == ["b", "a"]
    assert [video.name for video in Davis(root, sequences=("a",)).videos] == ["a"]
    with pytest.raises(ValueError, match=r"no sequence 'c' .* there are b, a"):
        Davis(root, sequences=("c",))


def test_another_list_is_named_when_one_is_missing(tmp_path):
    with pytest.raises(ValueError, match=r"no ImageSets/2016/val.txt .* it has 2017/val"):
        Davis(write_davis(tmp_path), split="2016/val")


def test_a_folder_of_something_else_is_refused(tmp_path):
    with pytest.raises(ValueError, match="a DAVIS folder holds JPEGImages/480p"):
        Davis(tmp_path)
    with pytest.raises(ValueError, match="no folder or tar archive"):
        Davis(tmp_path / "nothing")


def test_a_missing_frame_is_named(tmp_path):
    root = write_davis(tmp_path)
    (root / "JPEGImages/480p/discs/00003.jpg").unlink()
    with pytest.raises(ValueError, match=r"sequence 'discs' lacks 1 of its frames, the first is 00003.jpg"):
        Davis(root)


def test_a_gap_in_the_numbers_of_frames_is_a_missing_frame(tmp_path):
    root = write_davis(tmp_path)
    (root / "JPEGImages/480p/discs/00003.jpg").unlink()
    (root / "Annotations/480p/discs/00003.png").unlink()
    with pytest.raises(ValueError, match=r"the first is 00003.jpg"):
        Davis(root)


def test_a_missing_mask_is_named(tmp_path):
    root = write_davis(tmp_path)
    for frame in ("00002", "00004"):
        (root / f"Annotations/480p/discs/{frame}.png").unlink()
    with pytest.raises(ValueError, match=r"2 of 6 frames have no mask, the first is 00002.png"):
        Davis(root)


def test_masks_of_two_sizes_are_refused(tmp_path):
    root = write_davis(tmp_path)
    Image.new("L", (20, 10)).save(root / "Annotations/480p/discs/00003.png")
    davis = Davis(root)
    with pytest.raises(ValueError, match=r"mask discs/00003.png is 20x10 pixels, the first one 128x96"):
        davis.masks(davis.videos[0])


@pytest.mark.parametrize(
    ("content", "message"), [("colour", "holds colours"), ("text", "cannot decode mask 'mask.png in")]
)
def test_what_is_no_mask_is_refused(tmp_path, content, message):
    if content == "colour":
        Image.new("RGB", (4, 4)).save(tmp_path / "mask.png")
    else:
        (tmp_path / "mask.png").write_text("no picture")
    with pytest.raises(ValueError, match=message):
        read_mask(Files(tmp_path), "mask.png")


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_gray_masks_of_few_bits_keep_their_ids(tmp_path, bits):
    """Pillow stretches them to 0..255 when it reads them."""
    ids = np.arange(16, dtype=np.uint8).reshape(2, 8) & (2**bits - 1)
    Image.fromarray(ids).save(tmp_path / "m.png", bits=bits)
    data = bytearray((tmp_path / "m.png").read_bytes())
    assert read_mask(Files(tmp_path), "m.png").tolist() == ids.tolist(), data[24]


def test_a_frame_that_is_cut_short_is_named(tmp_path):
    root = write_davis(tmp_path)
    frame = root / "JPEGImages/480p/discs/00002.jpg"
    frame.write_bytes(frame.read_bytes()[:300])
    davis = Davis(root)
    with pytest.raises(ValueError, match=r"cannot decode frame 'JPEGImages/480p/discs/00002.jpg' in"):
        davis.frame(davis.videos[0], 2)


def test_colours_are_those_of_pascal_voc():
    colours = palette().tolist()
    assert colours[:5] == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128]]
    assert colours[8] == [64, 0, 0]
    assert colours[20] == [0, 64, 128]
    assert colours[255] == [224, 224, 192]


def test_a_written_mask_is_read_back_with_its_ids(tmp_path):
    mask = np.arange(256, dtype=np.uint8).reshape(16, 16)
    (tmp_path / "mask.png").write_bytes(png(mask))
    assert np.array_equal(read_mask(Files(tmp_path), "mask.png"), mask)
    with Image.open(io.BytesIO(png(mask))) as image:
        assert image.mode == "P"


def test_colours_are_those_of_the_official_results(real_images):
    files = Files(real_images / "davis" / "davis.tar")
    with Image.open(io.BytesIO(files.read("Annotations/480p/dog/00000.png"))) as image:
        theirs = np.array(image.getpalette()).reshape(-1, 3)
    assert np.array_equal(palette()[:2], theirs[:2])
