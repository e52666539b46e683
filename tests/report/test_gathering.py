import base64
import io

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from polygrain.cli import main
from polygrain.data.centred import Box
from polygrain.data.scenes import Scenes
from polygrain.evaluate.features import Views, extract
from polygrain.evaluate.models import open_model
from polygrain.evaluate.pixels import RawPixels
from polygrain.evaluate.profile import Grain, Profile
from polygrain.evaluate.sampling import Sample
from polygrain.parts.encoder import Encoder, EncoderSettings
from polygrain.report import codes
from polygrain.report.explorer import angles, duplicates, outliers
from polygrain.report.gathering import draw_images, group, others, see, short_names, tags, without_common_folder
from polygrain.report.inside import attention_section, heat, segments
from polygrain.report.mapping import purity, tsne_map
from polygrain.report.profile_figure import profile_section
from polygrain.report.settings import ReportSettings
from polygrain.report.thumbnails import packed, sheets, thumbnail
from tests.evaluate.fakes import Coloured

SETTINGS = ReportSettings(workers=0, size=32, batch_size=7)


def cloud(n: int, dim: int, seed: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(n, dim, generator=random) * torch.linspace(2, 0.2, dim)


def seen_of(images, settings=SETTINGS, encoder=None):
    encoder = encoder or RawPixels(image_size=32)
    views = Views(images, 32)
    shown = draw_images(images, views, settings)
    return shown, see("raw", open_model(encoder), shown, views, settings, codes.BYTES)


# Codes of regions


def test_distances_of_codes_are_those_of_the_vectors():
    """With all directions kept, d^2 = 2 - 2 cos up to rounding: half a step in each of two codes and 12 numbers."""
    vectors = cloud(200, 12)
    basis = codes.fit(vectors, 12)
    small = basis.codes(vectors).float() * basis.step
    exact = (2 - 2 * F.normalize(vectors, dim=1) @ F.normalize(vectors, dim=1).T).clamp_min(0).sqrt()
    assert (torch.cdist(small, small) - exact).abs().max() < 2 * 12**0.5 * basis.step


def test_directions_of_codes_are_the_principal_ones_of_sklearn():
    vectors = F.normalize(cloud(300, 20), dim=1)
    ours, theirs = codes.fit(vectors, 4).directions, torch.from_numpy(PCA(4).fit(vectors.numpy()).components_).float()
    assert (ours * theirs).sum(1).abs().tolist() == pytest.approx([1] * 4, abs=1e-3)


@pytest.mark.parametrize("images", [10, 1000, 2000, 5000])
@pytest.mark.parametrize("grid", [(4, 4), (14, 14), (7, 20), (37, 37)])
def test_codes_stay_within_their_budget(images, grid):
    planned = codes.plan(images, grid, 384)
    cells = -(-grid[0] // planned.pooled) * -(-grid[1] // planned.pooled)
    assert images * cells * (planned.dims + 1) <= codes.BYTES
    assert planned.dims >= codes.LEAST


def test_cells_are_means_of_the_patches_in_them():
    patches = F.normalize(cloud(15, 6).view(1, 15, 6), dim=-1)
    found = codes.cells(patches, (3, 5), 2)[0]  # rows 0-1 and 2, columns 0-1, 2-3 and 4
    assert found.shape == (2, 3, 6)
    maps = patches.view(3, 5, 6)
    torch.testing.assert_close(found[0, 0], (maps[0, 0] + maps[0, 1] + maps[1, 0] + maps[1, 1]) / 4)
    torch.testing.assert_close(found[1, 2], maps[2, 4])
    torch.testing.assert_close(found[1, 1], (maps[2, 2] + maps[2, 3]) / 2)


def test_agreement_is_full_for_codes_without_loss_and_chance_for_noise():
    vectors = F.normalize(cloud(500, 8), dim=1)
    assert agreement(vectors[:, None], vectors[:, None]) == 1.0
    noise = torch.randint(-127, 128, (500, 1, 8), generator=torch.Generator().manual_seed(1)).to(torch.int8)
    assert agreement(vectors[:, None], noise) < 0.1  # chance 2 %


def agreement(cells, kept, parts=5):
    """With nothing left out and a step of 1; the images come in several batches."""
    found = codes.Agreement(codes.Basis(torch.zeros(8), torch.eye(8), 1.0), cells[:200], kept[:200])
    for some in zip(cells.chunk(parts), kept.chunk(parts), strict=True):
        found.add(*some, torch.zeros(some[0].shape[:2]))
    return found.share()


def test_agreement_is_that_of_a_loop_over_all_regions_one_of_each_other_image():
    cells = F.normalize(cloud(40 * 6, 8).view(40, 6, 8), dim=-1)
    kept = (cells[..., :3] * 9).round()
    kept = F.pad(kept, (0, 5))
    shares = []
    for row in range(0, 240, -(-240 // codes.QUERIES)):
        lists = []
        for query, of in ((cells.flatten(0, 1)[row], cells), (kept.flatten(0, 1)[row], kept)):
            away = (of - query).norm(dim=-1)
            best = {i: float(away[i].min()) for i in range(40) if i != row // 6}
            lists.append({(i, int(away[i].argmin())) for i in sorted(best, key=best.__getitem__)[:10]})
        shares.append(len(lists[0] & lists[1]) / 10)
    assert 0.2 < np.mean(shares) < 0.9
    basis = codes.Basis(torch.zeros(8), torch.eye(8), 1.0)
    found = codes.Agreement(basis, cells, kept)
    found.add(cells, kept, torch.zeros(40, 6))
    assert found.share() == pytest.approx(np.mean(shares), abs=0.03)  # of equally near codes either may come


def test_copies_of_a_region_do_not_count_twice():
    """All regions alike: whatever the codes find is among the nearest or not, and no share exceeds 1."""
    cells = torch.ones(30, 4, 8) / 8**0.5
    found = codes.Agreement(codes.Basis(torch.zeros(8), torch.eye(8), 1.0), cells, cells)
    found.add(cells, cells, torch.zeros(30, 4))
    assert 0 <= found.share() <= 1


def test_what_codes_leave_out_makes_distances_those_of_the_vectors_on_average():
    """Parts that are left out are at right angles to each other but for chance, 1 / sqrt(D)."""
    vectors = cloud(400, 96)
    basis = codes.fit(vectors, 16)
    small, rest = basis.codes(vectors).float() * basis.step, basis.rest(vectors).float() / 255
    exact = 2 - 2 * F.normalize(vectors, dim=1) @ F.normalize(vectors, dim=1).T
    apart = ~torch.eye(400, dtype=torch.bool)
    codes_alone = torch.cdist(small, small).square()
    told = codes_alone + rest.square() + rest.square()[:, None]
    assert (exact - codes_alone)[apart].mean() > 0.1
    assert abs((exact - told)[apart].mean()) < 0.01


# What a model sees


def test_vectors_come_back_in_the_order_of_the_images_although_they_are_encoded_in_another():
    images = Scenes(20, size=32)
    _, seen = seen_of(images)
    plain = extract(RawPixels(image_size=32), images, size=32, patches=True)
    assert torch.equal(seen.pooled, plain.pooled)
    basis_free = torch.cdist(seen.codes[:, 0].float(), seen.codes[:, 0].float()) * seen.step
    exact = torch.cdist(F.normalize(plain.patches[:, 0], dim=-1), F.normalize(plain.patches[:, 0], dim=-1))
    assert (basis_free - exact).abs().max() < 0.1


def test_neighbours_are_those_of_sklearn():
    vectors = cloud(80, 10)
    rows, cosines = others(vectors, 5)
    distances, theirs = NearestNeighbors(n_neighbors=6, metric="cosine").fit(vectors).kneighbors(vectors)
    assert rows.tolist() == theirs[:, 1:].tolist()
    assert cosines.flatten().tolist() == pytest.approx((1 - distances[:, 1:]).ravel().tolist(), abs=1e-5)


def test_an_image_that_is_there_many_times_is_not_its_own_neighbour():
    vectors = torch.ones(30, 4)
    rows, _ = others(vectors, 8)
    assert not (rows == torch.arange(30)[:, None]).any()


def test_groups_are_numbered_by_size():
    settings = ReportSettings(groups=3)
    vectors = torch.cat([torch.eye(3)[c].expand(n, 3) for c, n in ((0, 5), (1, 30), (2, 12))])
    found, distances = group(vectors + 0.01 * cloud(47, 3), settings)
    assert torch.bincount(found).tolist() == [30, 12, 5]
    assert distances.max() < 0.1


def test_images_that_cannot_be_decoded_are_left_out_and_counted():
    shown, seen = seen_of(Coloured([0, 1] * 6, size=32, broken_at=(3, 8)))
    assert shown.broken == 2
    assert shown.names == [f"picture {i}" for i in range(12) if i not in (3, 8)]
    assert len(seen.pooled) == len(shown.labels) == 10


def test_fewer_images_are_drawn_by_the_seed():
    images = Scenes(40, size=32)
    names = [
        draw_images(images, Views(images, 32), ReportSettings(images=10, seed=seed, size=32)).names
        for seed in (0, 0, 1)
    ]
    assert len(set(names[0])) == 10
    assert names[0] == names[1] != names[2]


def test_more_groups_than_images_are_refused():
    with pytest.raises(ValueError, match="groups is 13; of 12 images there can be 12 at most"):
        draw_images(Scenes(12, size=32), Views(Scenes(12, size=32), 32), ReportSettings(groups=13))


def test_constant_features_are_said_aloud():
    class Blind(RawPixels):
        def features(self, pixels):
            seen = super().features(pixels)
            return seen._replace(pooled=torch.ones_like(seen.pooled), patches=torch.ones_like(seen.patches))

    _, seen = seen_of(Scenes(24, size=32), encoder=Blind(image_size=32))
    assert seen.notes == ("The features of all images are the same: this model tells no image from another.",)
    assert torch.isfinite(seen.cosines).all()
    with pytest.raises(ValueError, match="all vectors are alike"):
        tsne_map(seen.pooled, None)


def test_copies_and_outliers_are_found():
    class Twice(Coloured):
        def load(self, i):
            return super().load(3 if i == 7 else i)

    _, seen = seen_of(Twice([0, 0, 0, 1, 1, 1, 2, 1], size=32))
    assert duplicates(seen)[0] == (3, 7, pytest.approx(0, abs=0.05))
    assert outliers(seen)[0][0] == 6  # alone in its class


# The map


def test_the_map_keeps_clusters_apart_and_is_the_same_twice():
    labels = np.repeat([0, 1, 2], 20)
    vectors = torch.eye(3)[torch.from_numpy(labels)] * 3 + cloud(60, 3) * 0.2
    first, again = (tsne_map(vectors, labels) for _ in range(2))
    assert np.array_equal(first.places, again.places)
    assert np.isfinite(first.places).all()
    assert first.places.shape == (60, 2)
    assert first.purity == pytest.approx(1.0, abs=0.02)
    assert first.feature_purity == pytest.approx(1.0, abs=0.02)


def test_the_map_of_many_dimensions_is_more_trustworthy_than_two_components():
    random = torch.Generator().manual_seed(0)
    centres = torch.randn(12, 16, generator=random)
    vectors = centres.repeat_interleave(20, 0) + 0.2 * torch.randn(240, 16, generator=random)
    found = tsne_map(vectors, None)
    assert found.trust > found.pca_trust
    assert found.purity is None


def test_purity_is_the_share_of_neighbours_with_the_same_label():
    random = np.random.default_rng(0)
    vectors, labels = torch.from_numpy(random.normal(size=(50, 2))), random.integers(-1, 3, 50)
    kept = np.flatnonzero(labels >= 0)
    rows, truth = vectors.numpy()[kept], labels[kept]
    shares = []
    for i, row in enumerate(rows):
        nearest = [j for j in np.argsort(((rows - row) ** 2).sum(1)) if j != i][:10]
        shares.append(np.mean(truth[nearest] == truth[i]))
    assert purity(vectors, labels, plane=True) == pytest.approx(np.mean(shares))


def test_the_fewest_images_that_have_a_map_have_one():
    found = tsne_map(cloud(20, 4), None)
    assert found.places.shape == (20, 2)
    assert 0 < found.trust <= 1


def test_too_few_images_have_no_map():
    with pytest.raises(ValueError, match="10 images are too few for a map; it takes 20"):
        tsne_map(cloud(10, 4), None)


# Pictures


def test_thumbnails_stand_where_the_page_looks_for_them():
    pictures = [Image.new("RGB", (24, 24), (i % 256, 80 * (i // 256), 128)) for i in range(300)]
    made = sheets(pictures, 24)
    assert len(made.files) == 2
    for i in (0, 17, 255, 256, 299):
        sheet = Image.open(io.BytesIO(made.files[i // 256]))
        middle = sheet.getpixel((24 * (i % 16) + 12, 24 * (i % 256 // 16) + 12))
        assert np.abs(np.subtract(middle, (i % 256, 80 * (i // 256), 128))).max() < 12  # lossy


def test_a_thumbnail_shows_the_box_and_nothing_else():
    image = torch.zeros(3, 40, 60, dtype=torch.uint8)
    image[:, 10:30, 20:40] = 200
    inside = np.asarray(thumbnail(image, Box(10, 20, 20, 20), 16))
    assert inside.min() > 180  # the filter reaches a pixel beyond


def test_numbers_survive_the_way_into_the_page():
    values = np.array([0, 1, 65535])
    assert np.frombuffer(base64.b64decode(packed(values, "u2")), "<u2").tolist() == values.tolist()


def test_segments_part_what_differs_and_share_numbers_between_images():
    patches = torch.eye(4)[torch.tensor([[0, 0, 1, 1, 1, 2], [2, 1, 1, 0, 0, 0]])]
    found = segments(patches, (2, 3), count=3)
    kinds = {(int(a), int(b)) for a, b in zip(patches.argmax(-1).flatten(), found.reshape(-1), strict=True)}
    assert len(kinds) == 3
    assert (found == 2).sum() == 2  # the smallest comes last


def test_a_flat_map_of_attention_is_one_colour():
    assert len(np.unique(np.asarray(heat(np.full((3, 3), 0.1, np.float32))).reshape(-1, 3), axis=0)) == 1


def test_a_network_without_attention_is_left_out_and_named():
    images = Scenes(8, size=32)
    arguments = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2}
    vit = Encoder(EncoderSettings(name="vit_tiny_patch16_224", arguments=arguments))
    _, raw = seen_of(images)
    _, plain = seen_of(images, encoder=vit)
    assert attention_section([raw], [0]) is None
    body = attention_section([raw, plain._replace(name="vit")], [0]).body
    assert "vit: attention of the class token" in body
    assert "No attention to show of raw." in body


def test_the_profile_draws_a_bar_for_each_number_as_high_as_it_says():
    sample = Sample(np.zeros(1))
    grains = (
        Grain("region", 0.5, 0.4, 0.6, 0.1, "about regions", sample),
        Grain("fine", 1.0, 1.0, 1.0, 0.2, "about <fine>", sample),
    )
    section = profile_section(["a", "b & c"], [Profile("a", grains, {}, ()), Profile("b", grains[:1], {}, ("odd",))])
    assert section.body.count("<rect") == 3
    assert "height=112.0" in section.body  # half of 250 - 26
    assert "height=224.0" in section.body
    assert "b &amp; c: odd" in section.body
    assert "about &lt;fine&gt;; chance 20.0%" in section.body


def test_folders_that_all_images_share_are_not_repeated():
    assert without_common_folder(["/data/a/x.tar:1.jpg", "/data/a/y.tar:1.jpg"]) == ["x.tar:1.jpg", "y.tar:1.jpg"]
    assert without_common_folder(["dogs/1.jpg", "cats/1.jpg"]) == ["dogs/1.jpg", "cats/1.jpg"]


def test_angles_are_those_between_the_vectors():
    cosines = torch.tensor([[1.0, 0.5, 0.0], [-1.0, 3**0.5 / 2, 1.0000001]])
    assert angles(cosines).flatten().tolist() == pytest.approx([0, 60, 90, 180, 30, 0], abs=0.01)


def test_names_are_as_short_as_can_be_told_apart(tmp_path):
    paths = [tmp_path / "one" / "x" / "run", tmp_path / "two" / "x" / "run"]
    for path in paths:
        path.mkdir(parents=True)
    assert short_names([str(path) for path in paths]) == ["one/x/run", "two/x/run"]
    (tmp_path / "x.safetensors").touch()
    assert short_names([str(tmp_path / "x.safetensors"), "pixels"]) == [f"{tmp_path.name}/x", "pixels"]
    assert short_names([str(paths[0]), "timm:resnet18"]) == ["x/run", "timm:resnet18"]
    assert short_names(["Encoder", "pixels", "Encoder"]) == ["Encoder", "pixels", "Encoder (2)"]
    assert tags([f"runs/all_the_same_but_weight_0.{i}" for i in (1, 25)]) == ["…weight_0.1", "…weight_0.25"]
    assert tags(["runs/first_a", "runs/first_b"]) == ["runs/first_a", "runs/first_b"]
    assert tags(["x/run", "timm:resnet18"]) == ["x/run", "timm:resnet18"]
    assert tags(["runs/first_try_a"]) == ["runs/first_try_a"]
    rates = [tmp_path / "runs" / "lr0.1", tmp_path / "runs" / "lr0.3"]
    for path in rates:
        path.mkdir(parents=True)
    assert short_names([str(path) for path in rates]) == ["runs/lr0.1", "runs/lr0.3"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--data", "scenes:20:64"], "name a model"),
        (["pixels", "--data", "scenes:20:64", "--images", "1"], "images is 1; a page shows 2 to 5,000"),
        (["pixels", "--data", "scenes:20:64", "--aspect", "native"], "unknown option --aspect"),
        (["pixels", "--data", "scenes:20:64", "--out", "nowhere/x.html"], "the folder of nowhere/x.html is not there"),
        (
            ["pixels", "--data", "scenes:20:64", "--out", "."],
            ". is a folder; name a file in it",
        ),
        (["none", "--data", "nowhere", "--hierarchy", "h.json"], "hierarchy 'h.json': No such file"),
        (["pixel", "--data", "scenes:20:64"], "did you mean 'pixels'"),
        (["pixels"], "missing --data"),
    ],
)
def test_a_mistake_is_told_in_one_line(tmp_path, monkeypatch, capsys, arguments, told):
    monkeypatch.chdir(tmp_path)
    assert main(["report", *arguments]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
