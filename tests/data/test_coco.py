import copy
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from polygrain.data.coco import CocoImages
from polygrain.data.coco_json import Annotations, _run_lengths, mask_of, pycocotools

TRIANGLE = [2.0, 1.0, 12.0, 1.0, 12.0, 9.0]


def content():
    """One image of 20x10 pixels with a triangle, a crowd, and a box without width."""
    common = {"image_id": 7, "area": 40.0}
    runs = {"size": [10, 20], "counts": [0, 30, 170]}  # the three columns on the left
    return {
        "images": [{"id": 7, "file_name": "a.png", "height": 10, "width": 20}],
        "categories": [{"id": 90, "name": "kite"}, {"id": 3, "name": "boat"}],
        "annotations": [
            {**common, "id": 0, "category_id": 90, "bbox": [2, 1, 10, 8], "segmentation": [TRIANGLE], "iscrowd": 0},
            {**common, "id": 1, "category_id": 3, "bbox": [0, 0, 3, 10], "segmentation": runs, "iscrowd": 1},
            {**common, "id": 2, "category_id": 3, "bbox": [4, 4, 0, 2], "segmentation": [TRIANGLE]},
        ],
    }


def written(folder: Path, fields) -> Path:
    Image.new("RGB", (20, 10), "red").save(folder / "a.png")
    path = folder / "instances.json"
    path.write_text(json.dumps(fields))
    return path


def test_boxes_are_given_by_their_corners_and_categories_as_labels_from_one(tmp_path):
    images = CocoImages(tmp_path, written(tmp_path, content()))
    truth = images.truth(0)
    assert truth.boxes.tolist() == [[2, 1, 12, 9]]
    assert truth.labels.tolist() == [2]  # 90 is the second of 3 and 90
    assert images.pixels(0).shape == (3, 10, 20)


def test_crowds_and_boxes_without_area_are_no_objects_to_learn(tmp_path):
    images = CocoImages(tmp_path, written(tmp_path, content()))
    assert len(images.truth(0).boxes) == 1
    assert images.annotations.empty() == [2]


EMPTY = {
    "no width in float32": {"bbox": [50, 20, 1e-7, 10]},
    "no width in float32 once it is mirrored": {"bbox": [2, 1, 1e-6, 8]},
    "left of the image": {"bbox": [-9, 1, 9, 8]},
    "below the image": {"bbox": [5000, 5000, 10, 8]},
    "a polygon of one point": {"segmentation": [[4.0, 4.0] * 3]},
    "a polygon beside the image": {"segmentation": [[x + 500 for x in TRIANGLE]]},
    "run lengths of background alone": {"segmentation": {"size": [10, 20], "counts": [200]}},
}


@pytest.mark.parametrize("change", EMPTY.values(), ids=EMPTY)
def test_objects_of_which_nothing_is_in_the_image_are_no_objects_to_learn(tmp_path, change):
    fields = content()
    fields["annotations"][0] |= change
    images = CocoImages(tmp_path, written(tmp_path, fields))
    assert images.annotations.empty() == [0, 2]
    assert len(images.truth(0).boxes) == 0


def test_a_box_that_leaves_its_image_is_learnt(tmp_path):
    fields = content()
    fields["annotations"][0]["bbox"] = [12, -3, 400, 400]
    assert CocoImages(tmp_path, written(tmp_path, fields)).truth(0).boxes.tolist() == [[12, -3, 412, 397]]


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
def test_compressed_run_lengths_are_read_as_their_package_wrote_them(tmp_path, share):
    mask = (np.random.default_rng(0).random((60, 70)) < share).astype(np.uint8, order="F")
    mask[:, 20:50] = mask[0, 0]  # a long run
    flat = mask.T.ravel()
    starts = [0, *(np.flatnonzero(np.diff(flat)) + 1), flat.size]
    counts = pycocotools().mask.encode(np.asfortranarray(mask))["counts"].decode()
    assert _run_lengths(counts) == [0] * int(flat[0]) + np.diff(starts).tolist()


def test_an_image_without_objects_has_no_boxes_and_no_masks(tmp_path):
    truth = CocoImages(tmp_path, written(tmp_path, content() | {"annotations": []})).truth(0)
    assert [tuple(part.shape) for part in truth] == [(0, 4), (0,), (0, 10, 20)]


def test_polygons_become_the_pixels_inside():
    picture = Image.new("L", (20, 10))
    ImageDraw.Draw(picture).polygon([(x, y) for x, y in zip(TRIANGLE[::2], TRIANGLE[1::2], strict=True)], fill=1)
    drawn, mask = np.asarray(picture), mask_of([TRIANGLE], 10, 20)
    assert (drawn * mask).sum() >= 0.75 * mask.sum()  # they differ on the edge alone
    assert mask.sum() == pytest.approx(40, abs=5)


def test_run_lengths_go_down_columns():
    mask = mask_of({"size": [10, 20], "counts": [10, 5, 185]}, 10, 20)
    expected = np.zeros((10, 20))
    expected[:5, 1] = 1
    assert np.array_equal(mask, expected)


def test_the_eighty_categories_of_coco_keep_their_ids_there_and_back(real_images):
    annotations = Annotations(real_images / "coco" / "instances_val.json")
    ids = sorted(category["id"] for category in json.loads(annotations.path.read_bytes())["categories"])
    assert len(ids) == 80 and ids[-1] == 90
    assert [annotations.category(annotations.labels[category]) for category in ids] == ids
    assert sorted(annotations.labels.values()) == list(range(1, 81))


def test_masks_of_real_objects_fill_their_boxes_and_have_their_area(real_images):
    images = CocoImages(real_images / "coco" / "val.tar", real_images / "coco" / "instances_val.json")
    found = [one for one in images.annotations.objects[images.ids[0]] if not one["iscrowd"]]
    truth = images.truth(0)
    assert images.pixels(0).shape[1:] == truth.masks.shape[1:]
    for one, (left, top, right, bottom), mask in zip(found, truth.boxes.tolist(), truth.masks, strict=True):
        rows, columns = np.nonzero(mask.numpy())
        assert abs(rows.min() - top) <= 4 and abs(rows.max() + 1 - bottom) <= 4
        assert abs(columns.min() - left) <= 4 and abs(columns.max() + 1 - right) <= 4
        assert mask.sum().item() == pytest.approx(one["area"], rel=0.1, abs=15)


def test_the_digest_tells_other_annotations(tmp_path):
    first = CocoImages(tmp_path, written(tmp_path, content())).digest()
    moved = content()
    moved["annotations"][0]["bbox"][0] = 3
    assert CocoImages(tmp_path, written(tmp_path, moved)).digest() != first


def broken(change):
    fields = copy.deepcopy(content())
    change(fields)
    return fields


def runs(counts):
    return lambda fields: fields["annotations"][1].update(segmentation={"size": [10, 20], "counts": counts})


BROKEN = {
    "it has no list of annotations": lambda f: f.pop("annotations"),
    "its images are empty": lambda f: f.update(images=[], annotations=[]),
    "annotations with id 0 lacks 'bbox'": lambda f: f["annotations"][0].pop("bbox"),
    "id 1 occurs twice in annotations": lambda f: f["annotations"][0].update(id=1),
    "annotation 0 is of image 8, which its images do not list": lambda f: f["annotations"][0].update(image_id=8),
    "annotation 0 is of category 91, which its": lambda f: f["annotations"][0].update(category_id=91),
    "a polygon of annotation 0 has 4 numbers": lambda f: f["annotations"][0].update(segmentation=[TRIANGLE[:4]]),
    "a polygon of annotation 0 has 7 numbers": lambda f: f["annotations"][0].update(segmentation=[[*TRIANGLE, 1.0]]),
    "a polygon of annotation 0 holds what is no finite": lambda f: f["annotations"][0].update(
        segmentation=[[math.nan, *TRIANGLE[1:]]]
    ),
    "the segmentation of annotation 0 is \\[\\]": lambda f: f["annotations"][0].update(segmentation=[]),
    "the bbox of annotation 0 is \\[1, 2, 3\\]": lambda f: f["annotations"][0].update(bbox=[1, 2, 3]),
    "the mask of annotation 1 has size \\[20, 10\\], its image has \\[10, 20\\]": lambda f: f["annotations"][1].update(
        segmentation={"size": [20, 10], "counts": [200]}
    ),
    "the mask of annotation 1 has size \\[10.0, 20\\], its": lambda f: f["annotations"][1].update(
        segmentation={"size": [10.0, 20], "counts": [200]}
    ),
    "the run lengths of annotation 1 cover 150 pixels, its image has 200": lambda f: f["annotations"][1].update(
        segmentation={"size": [10, 20], "counts": [50, 100]}
    ),
    "category_id of annotations with id 0 is \\[3\\]; it must be a whole": lambda f: f["annotations"][0].update(
        category_id=[3]
    ),
    "image_id of annotations with id 0 is True": lambda f: f["annotations"][0].update(image_id=True),
    "file_name of images with id 7 is 5; it must be text": lambda f: f["images"][0].update(file_name=5),
    "height of images with id 7 is '10'; it must be a whole": lambda f: f["images"][0].update(height="10"),
    "image 7 has 20x0 pixels; sides must be 1": lambda f: f["images"][0].update(height=0),
    "name of categories with id 90 is None; it must be text": lambda f: f["categories"][0].update(name=None),
    "iscrowd of annotation 0 is 'no'; it must be 0 or 1": lambda f: f["annotations"][0].update(iscrowd="no"),
    "the bbox of annotation 0 is \\[1e\\+30, 1, 2, 2\\]; .* -1000000 and 1000000": lambda f: f["annotations"][0].update(
        bbox=[1e30, 1, 2, 2]
    ),
    "the bbox of annotation 0 is \\[2, 1, 1000": lambda f: f["annotations"][0].update(bbox=[2, 1, 10**400, 3]),
    "the run lengths of annotation 1 are \\['100', 100\\]; they must be whole": runs(["100", 100]),
    "the run lengths of annotation 1 are \\[300, -100\\]; they must be whole": runs([300, -100]),
    "the run lengths of annotation 1 are 5; they must be whole": runs(5),
    "the run lengths of annotation 1 are '~~~'; they must be whole": runs("~~~"),
    "the run lengths of annotation 1 are 'P'; they must be whole": runs("P"),  # more should follow
    "the run lengths of annotation 1 cover 0 pixels, its image has 200": runs(""),
    "the run lengths of annotation 1 cover 15 pixels, its image has 200": runs("5:"),
    "no b.png in": lambda f: f["images"][0].update(file_name="b.png"),
}


@pytest.mark.parametrize("told", BROKEN)
def test_broken_annotations_are_refused_in_one_line(tmp_path, told):
    with pytest.raises(ValueError, match=told) as error:
        CocoImages(tmp_path, written(tmp_path, broken(BROKEN[told])))
    assert "\n" not in str(error.value)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(ValueError, match=r"need pycocotools: pip install 'polygrain\[detection\]'"):
        mask_of([TRIANGLE], 10, 20)


@pytest.mark.parametrize("text", ["{", "[]", '{"images": 3}'])
def test_what_is_no_coco_json_is_refused(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match=r"is no json|is no COCO json of instances"):
        Annotations(tmp_path / "x.json")


def test_a_missing_json_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"cannot read .*No such file"):
        Annotations(tmp_path / "x.json")


@pytest.mark.parametrize("look", [lambda images: images.pixels(0), lambda images: images.check_headers()])
def test_an_image_of_another_size_than_the_json_says_is_refused(tmp_path, look):
    fields = content()
    fields["images"][0]["width"] = 21
    fields["annotations"].pop(1)
    with pytest.raises(ValueError, match=r"a.png is 20x10 pixels, .* says 21x10; they must agree"):
        look(CocoImages(tmp_path, written(tmp_path, fields)))


def test_a_broken_image_is_refused_before_it_is_needed(tmp_path):
    images = CocoImages(tmp_path, written(tmp_path, content()))
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"a.png in .* cannot be decoded: not an image"):
        images.check_headers()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_headers_are_read_as_upright_as_pixels(tmp_path, orientation):
    fields = content() | {"annotations": []}
    fields["images"][0]["file_name"] = "a.jpg"
    if orientation >= 5:
        fields["images"][0].update(width=10, height=20)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = written(tmp_path, fields)
    Image.new("RGB", (20, 10)).save(tmp_path / "a.jpg", exif=exif)
    images = CocoImages(tmp_path, path)
    images.check_headers()
    assert images.pixels(0).shape[1:] == (fields["images"][0]["height"], fields["images"][0]["width"])
