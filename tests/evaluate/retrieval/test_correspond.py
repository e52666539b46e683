import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from polygrain.cli import main
from polygrain.evaluate.pixels import RawPixels
from polygrain.evaluate.retrieval import pairs
from polygrain.evaluate.retrieval.correspond import evaluate_correspond
from polygrain.evaluate.retrieval.correspondence import chance, hits, match, places
from polygrain.evaluate.settings.retrieval import CorrespondSettings
from polygrain.parts.encoder import Features
from polygrain.views import patch_centres
from tests.evaluate.retrieval.test_copies import Pictures

ASKED = {"images": None}  # with keypoints, which are not drawn
SETTINGS = {"size": 64, "device": "cpu", "images": 20}


def code(points, width=60.0, dim=512):
    """Random Fourier features: the nearer two points, the larger the cosine."""
    frequencies = torch.randn(2, dim, generator=torch.Generator().manual_seed(0)) / width
    phases = points @ frequencies
    return torch.cat([phases.cos(), phases.sin()], dim=-1)


def boxes(seed, count=16, flips=True):
    random = torch.Generator().manual_seed(seed)
    sides = torch.randint(60, 120, (count, 2), generator=random)
    corners = torch.randint(0, 80, (count, 2), generator=random)
    flipped = torch.randint(2, (count,), generator=random).bool() & flips
    return torch.cat([corners, sides], dim=1).float(), flipped


def test_the_place_of_a_crops_own_centres_is_their_own_cell():
    box, flipped = boxes(0)
    found = places(patch_centres(box, flipped, 5, 7), box, flipped, (5, 7))
    assert found.inside.all()
    assert torch.equal(found.rows * 7 + found.columns, torch.arange(35).expand(16, -1))


def test_places_are_the_nearest_centres_of_the_other_crop_flipped_or_not():
    (one, turned), (other, mirrored) = boxes(1), boxes(2)
    centres, others = patch_centres(one, turned, 6, 6), patch_centres(other, mirrored, 6, 6)
    found = places(centres, other, mirrored, (6, 6))
    assert 0 < found.inside.float().mean() < 1
    relative = (centres[:, :, None] - others[:, None]) / other[:, None, None, 2:]  # in sides of the other crop
    nearest = relative.square().sum(3).argmin(2)
    assert torch.equal((found.rows * 6 + found.columns)[found.inside], nearest[found.inside])


def test_features_that_code_the_position_are_all_matched_right():
    (one, turned), (other, mirrored) = boxes(3), boxes(4)
    other[:, 2:] = other[:, 2:3]  # square cells, so that the nearest centre is that of the cell
    centres, others = patch_centres(one, turned, 6, 6), patch_centres(other, mirrored, 6, 6)
    true = places(centres, other, mirrored, (6, 6))
    found = hits(match(code(centres), code(others)).nearest, true, (6, 6), 0)
    assert found[true.inside].float().mean() > 0.98  # points between two cells may fall to either


def test_the_same_crop_twice_is_matched_without_error():
    box, flipped = boxes(5)
    features = torch.randn(16, 36, 8, generator=torch.Generator().manual_seed(0))
    matches = match(features, features)
    true = places(patch_centres(box, flipped, 6, 6), box, flipped, (6, 6))
    assert hits(matches.nearest, true, (6, 6), 0).all()
    assert matches.mutual.all()


def test_a_mirrored_crop_is_matched_with_its_columns_reversed():
    box = torch.tensor([[0.0, 0, 60, 60]])
    plain, turned = torch.tensor([False]), torch.tensor([True])
    features = torch.randn(1, 6, 6, 8, generator=torch.Generator().manual_seed(0))
    matches = match(features.flatten(1, 2), features.flip(2).flatten(1, 2))
    true = places(patch_centres(box, plain, 6, 6), box, turned, (6, 6))
    assert hits(matches.nearest, true, (6, 6), 0).all()


@pytest.mark.parametrize("radius", [0, 1, 2])
def test_random_features_hit_as_often_as_counting_cells_says(radius):
    (one, turned), (other, mirrored) = boxes(6, 2000), boxes(7, 2000)
    true = places(patch_centres(one, turned, 6, 5), other, mirrored, (6, 5))
    random = torch.Generator().manual_seed(0)
    nearest = match(*torch.randn(2, 2000, 30, 8, generator=random)).nearest
    found = hits(nearest, true, (6, 5), radius)[true.inside].float()
    expected = chance(true, (6, 5), radius)[true.inside]
    assert found.mean().item() == pytest.approx(expected.mean().item(), abs=0.01)
    for row, column in ((0, 0), (2, 4), (5, 2)):
        window = sum(abs(r - row) <= radius and abs(c - column) <= radius for r in range(6) for c in range(5))
        chosen = (true.rows == row) & (true.columns == column)
        assert chance(true, (6, 5), radius)[chosen][0].item() == pytest.approx(window / 30)


def test_mutual_matches_are_those_found_both_ways():
    first = torch.tensor([[[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]]])
    second = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    matches = match(first, second)
    assert matches.nearest.tolist() == [[0, 0, 1]]
    assert matches.mutual.tolist() == [[True, False, True]]


class Patches(RawPixels):
    """Patches are what `made` makes of (B, N, 3 P P) pixels."""

    def __init__(self, made):
        super().__init__(patch_size=8)
        self.made = made

    def features(self, pixels):
        seen = super().features(pixels)
        return Features(seen.pooled, self.made(seen.patches), seen.unnormed, seen.grid)


def noise(patches):
    random = torch.Generator().manual_seed(int(1e4 * patches.sum()))
    return torch.randn(*patches.shape[:2], 8, generator=random)


def score(model, data, keypoints=None, **options):
    return evaluate_correspond(model, data, keypoints, CorrespondSettings(**{**SETTINGS, **options}))


def test_pixels_find_more_than_chance_and_noise_does_not():
    colours = score(Patches(lambda patches: patches - patches.mean()), Pictures(20, size=96)).scores["crops"]
    nothing = score(Patches(noise), Pictures(20, size=96)).scores["crops"]
    assert colours["PCK@1"] > 2 * colours["chance@1"]
    assert nothing["PCK@1"] == pytest.approx(nothing["chance@1"], abs=0.05)
    assert colours["chance@1"] == pytest.approx(nothing["chance@1"])
    assert colours["PCK@0_low"] <= colours["PCK@0"] <= colours["PCK@0_high"]


def test_the_whole_image_twice_is_matched_up_to_its_mirror_image():
    found = score(
        Patches(lambda patches: patches.unflatten(2, (3, -1)).mean(3) - 0.5), Pictures(20, size=96), scale=(1.0, 1.0)
    )
    assert found.scores["crops"]["PCK@1"] > 0.8


def test_patches_that_are_all_alike_are_said_to_be_so():
    found = score(Patches(torch.ones_like), Pictures(5))
    assert any("same features" in note for note in found.notes)
    assert all(math.isfinite(value) for value in found.scores["crops"].values())


def test_pairs_without_overlap_are_left_out_aloud():
    found = score(Patches(noise), Pictures(100, size=96), images=100, scale=(0.02, 0.05))
    assert any("no point in common" in note for note in found.notes)
    assert len(found.items["crops"].values) < 100


def test_the_same_seed_gives_the_same_numbers_in_batches_of_any_size(monkeypatch):
    first = score("random:vit_mini_64", Pictures(9))
    monkeypatch.setattr(pairs, "BATCH", 2)
    second = score("random:vit_mini_64", Pictures(9))
    assert first.fingerprint == second.fingerprint
    assert first.scores["crops"] == pytest.approx(second.scores["crops"], abs=1e-6)


def test_a_size_that_is_given_is_the_same_protocol_as_one_that_is_the_models_own():
    given, own = (score(Patches(noise), Pictures(3), size=size) for size in (64, None))
    assert given.fingerprint == own.fingerprint


def test_a_map_of_one_cell_in_which_every_match_is_right_is_said_to_be_so():
    found = score("random:resnet10t", Pictures(3), size=32)
    assert found.scores["crops"]["PCK@0"] == found.scores["crops"]["chance@0"] == 1.0
    assert any("map is one cell" in note for note in found.notes)
    assert found.facts["grid"] == [1, 1]


@pytest.fixture
def keypoints(tmp_path):
    """A picture and its copy at twice the size, with points one can compute."""
    image = Pictures(1, size=64).load(0).permute(1, 2, 0).numpy()  # 72 high
    Image.fromarray(image).save(tmp_path / "a.png")
    Image.fromarray(image.repeat(2, axis=0).repeat(2, axis=1)).save(tmp_path / "b.png")
    points = [[3, 5], [33, 40], [60, 70]]
    pair = {
        "source": "a.png",
        "target": "b.png",
        "source_points": points,
        "target_points": (2 * np.array(points)).tolist(),
    }
    (tmp_path / "pairs.json").write_text(json.dumps({"pairs": [pair]}))
    return tmp_path, pair


def test_keypoints_of_an_image_and_its_enlargement_are_matched(keypoints):
    folder, _ = keypoints
    found = score(Patches(lambda patches: patches - 0.5), str(folder), folder / "pairs.json", **ASKED)
    scores = found.scores["keypoints"]
    assert scores["PCK@0"] == scores["mutual"] == 1.0
    assert scores["chance@0"] == pytest.approx(1 / 64)


@pytest.mark.parametrize("option", ["images", "scale", "recipe"])
def test_an_option_for_crops_is_refused_with_keypoints(keypoints, option):
    folder, _ = keypoints
    value = {"images": 20, "scale": (0.4, 1.0), "recipe": "mae"}[option]
    settings = CorrespondSettings(size=64, device="cpu", **{option: value})
    with pytest.raises(ValueError, match=f"{option} is for crops of one image, and --keypoints names pairs"):
        evaluate_correspond(RawPixels(), str(folder), folder / "pairs.json", settings)


def test_a_default_that_is_given_is_the_same_protocol():
    given = {"images": 500, "scale": (0.4, 1.0), "recipe": "mae"}
    one, other = (score(RawPixels(), Pictures(3), **{"images": None, **options}) for options in ({}, given))
    assert one.fingerprint == other.fingerprint != score(RawPixels(), Pictures(3), scale=(0.5, 1.0)).fingerprint


def test_the_command_line_takes_crops_and_their_number(capsys, tmp_path):
    options = [
        "--images",
        "3",
        "--scale",
        "0.5,0.9",
        "--recipe",
        "byol_a",
        "--size",
        "32",
        "--json",
        str(tmp_path / "r"),
    ]
    assert main(["evaluate", "correspond", "pixels", "--data", "scenes:4:32", *options]) == 0
    assert json.loads((tmp_path / "r").read_text())["facts"]["settings"]["scale"] == [0.5, 0.9]
    capsys.readouterr()


def test_a_name_of_several_images_needs_its_folder(keypoints):
    folder, pair = keypoints
    for name in ("one", "two"):
        (folder / name).mkdir()
        (folder / name / "a.png").write_bytes((folder / "a.png").read_bytes())
    (folder / "a.png").unlink()
    with pytest.raises(ValueError, match=r"'a.png' names 2 images \(one/a.png, two/a.png\); give the folder too"):
        score(Patches(noise), str(folder), folder / "pairs.json", **ASKED)
    (folder / "pairs.json").write_text(json.dumps({"pairs": [{**pair, "source": "two/a.png"}]}))
    assert score(Patches(noise), str(folder), folder / "pairs.json", **ASKED).facts["data"]["pairs"] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": "c.png"}, "pair 0 names 'c.png', which is not among the images"),
        ({"target_points": [[1, 1]]}, "has 3 and 1 points"),
        ({"source_points": [[3, 5], [33, 40], [64, 70]]}, r"x=64, y=70 lies outside 'a.png' of 64x72 pixels"),
        ({"source_points": None}, "is not a list of pairs"),
    ],
)
def test_keypoints_that_cannot_be_are_refused(keypoints, change, message):
    folder, pair = keypoints
    (folder / "pairs.json").write_text(json.dumps({"pairs": [{**pair, **change}]}))
    with pytest.raises(ValueError, match=message):
        score(Patches(noise), str(folder), folder / "pairs.json", **ASKED)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"images": 0}, "images is 0"),
        ({"scale": (0.5, 0.2)}, r"scale is \[0.5, 0.2\]"),
    ],
)
def test_settings_that_cannot_work_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        CorrespondSettings(**wrong)


def test_recipes_that_move_pixels_are_refused():
    with pytest.raises(ValueError, match="turns and shears"):
        score(RawPixels(), Pictures(3), recipe="deit")
