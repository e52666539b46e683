"""The report as a whole: what is written of which images and models, and what is refused before the encoding."""

import dataclasses
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from polygrain.data.photometric import IMAGENET, Normalisation
from polygrain.data.scenes import Scenes
from polygrain.evaluate.profile import granularity_profile
from polygrain.evaluate.settings.unlabelled import LookSettings
from polygrain.parts.encoder import Encoder, EncoderSettings
from polygrain.report.building import write_model_report
from polygrain.report.settings import ReportSettings
from polygrain.weights.backbone import save_backbone

SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2}
SETTINGS = ReportSettings(workers=0, size=32, closeups=2, changed=10)


def vit(channels=3, **arguments):
    torch.manual_seed(0)
    settings = EncoderSettings(name="vit_tiny_patch16_224", channels=channels, arguments={**SMALL, **arguments})
    return Encoder(settings).eval()


def headings(path):
    return re.findall(r"<h2>(.*?)</h2>", path.read_text())


@pytest.mark.parametrize("channels", [1, 5])
def test_a_report_of_images_of_any_channels_has_every_section(tmp_path, channels):
    file, images, random = tmp_path / "vit.safetensors", tmp_path / "images", np.random.default_rng(0)
    save_backbone(file, vit(channels), normalisation=Normalisation((0.4,) * channels, (0.2,) * channels))
    images.mkdir()
    for i in range(22):
        np.save(images / f"{i}.npy", random.integers(0, 256, (channels, 32, 32), dtype=np.uint8))
    write_model_report([str(file)], images, tmp_path / "page.html", SETTINGS)
    assert {"Granularity profile", "Map", "Patches", "Attention", "Matches between two crops"} <= set(
        headings(tmp_path / "page.html")
    )


def pictures(folder, count=22):
    """A folder of noise, without classes."""
    folder.mkdir(parents=True)
    for i in range(count):
        pixels = np.random.default_rng(i).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:02d}.png")
    return str(folder)


def run_folder(path, log=""):
    path.mkdir(parents=True)
    save_backbone(path / "backbone.safetensors", vit(), normalisation=IMAGENET)
    (path / "log.jsonl").write_text(log)
    return path


def test_each_image_is_encoded_plainly_once_for_map_and_profile_together(tmp_path):
    """30 once, and of the 10 changed ones four crops, the plain view of their patches, and that one shifted."""
    encoder, shown = vit(), []
    encoder.model.patch_embed.register_forward_pre_hook(lambda _, given: shown.append(len(given[0])))
    write_model_report([encoder], Scenes(30, size=32), tmp_path / "page.html", SETTINGS)
    closeups = 2 + 2 + 2 * 2  # patches, attention, and two crops of each
    assert sum(shown) == 30 + 10 * 6 + closeups


def test_the_profile_of_the_page_is_that_of_python(tmp_path):
    images = Scenes(30, size=32)
    write_model_report([vit()], images, tmp_path / "page.html", SETTINGS)
    labels = {"fine": images.fine_labels(), "coarse": images.coarse_labels()}
    look = LookSettings(images=30, changed=10, workers=0, size=32, cache="none")
    found = granularity_profile(vit(), images, labels, look)
    text = (tmp_path / "page.html").read_text()
    for grain in found.grains:
        assert f"{grain.name}: {grain.value:.1%} [{grain.low:.1%}, {grain.high:.1%}], chance {grain.chance:.1%}" in text


def test_models_with_other_grids_say_how_many_places_each_has_to_choose_from(tmp_path):
    models = [vit(patch_size=size) for size in (8, 4, 16)]
    write_model_report(models, Scenes(24, size=32), tmp_path / "page.html", SETTINGS)
    text = (tmp_path / "page.html").read_text()
    for cells in (16, 64, 4):
        (told,) = re.findall(rf"their place among the {cells} of another crop of the image; chance ([\d.]+%)", text)
        assert float(told[:-1]) / 100 == pytest.approx(1 / cells, rel=0.1)  # a place between two cells has two
    assert "These models were not measured alike: they differ in regions" in text
    assert len(set(re.findall(r"profile ([0-9a-f]{12}): 10 neighbours; kNN with k = 20", text))) == 3


def test_too_few_images_for_a_profile_are_said_where_it_would_stand(tmp_path):
    write_model_report([vit()], pictures(tmp_path / "set", 12), tmp_path / "page.html", SETTINGS)
    assert "12 images are too few for a granularity profile; it takes 20" in (tmp_path / "page.html").read_text()
    assert "<title>What Encoder sees</title>" in (tmp_path / "page.html").read_text()


def test_a_run_given_as_a_path_has_its_name_and_its_curves(tmp_path):
    run = run_folder(tmp_path / "runs" / "lr0.1", '{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.5}\n{"step": 3, "l')
    write_model_report([run], pictures(tmp_path / "set", 4), tmp_path / "page.html", SETTINGS)
    text = (tmp_path / "page.html").read_text()
    assert "<title>What runs/lr0.1 sees</title>" in text
    assert "Training" in headings(tmp_path / "page.html")
    assert "<span>1.5</span>" in text
    assert "The last line of the log is half written" in text


def test_names_that_are_no_text_become_escapes(tmp_path):
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    write_model_report(["pixels"], pictures(Path(folder), 3), tmp_path / "page.html", SETTINGS)
    assert r"caf\udce9" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(
    ("count", "hierarchy", "told"),
    [
        (22, {"a": "b"}, "these images have no labels that .* could group"),
        (12, {"a": "b"}, "for which 12 images are too few"),
        (22, ["a"], "must look like"),
    ],
)
def test_a_hierarchy_that_would_be_left_out_is_refused_before_the_encoding(tmp_path, count, hierarchy, told):
    file = tmp_path / "groups.json"
    file.write_text(json.dumps(hierarchy))
    encoder, shown = vit(), []
    encoder.model.patch_embed.register_forward_pre_hook(lambda _, given: shown.append(given))
    settings = dataclasses.replace(SETTINGS, hierarchy=str(file))
    with pytest.raises(ValueError, match=told):
        write_model_report([encoder], pictures(tmp_path / "set", count), tmp_path / "page.html", settings)
    assert not shown


def test_a_hierarchy_of_scenes_is_refused(tmp_path):
    (tmp_path / "groups.json").write_text("{}")
    settings = dataclasses.replace(SETTINGS, hierarchy=str(tmp_path / "groups.json"))
    with pytest.raises(ValueError, match="scenes have coarse classes of their own"):
        write_model_report([vit()], Scenes(22, size=32), tmp_path / "page.html", settings)


def test_a_log_that_cannot_be_read_ends_it_before_the_models_are_opened(tmp_path):
    run = run_folder(tmp_path / "run", '{"step": 1}\n{"st\n{"step": 3}\n')
    (run / "backbone.safetensors").unlink()
    with pytest.raises(ValueError, match=r"log.jsonl, line 2 is no JSON"):
        write_model_report([run], Scenes(22, size=32), tmp_path / "page.html", SETTINGS)


def test_models_that_are_shown_other_crops_stand_beside_their_own(tmp_path):
    settings = dataclasses.replace(SETTINGS, size=None)
    for models, images in (([vit(), vit(img_size=48)], 2), ([vit(), vit(depth=2)], 1)):
        write_model_report(models, Scenes(4, size=64), tmp_path / "page.html", settings)
        (section,) = re.findall(r"<h2>Patches</h2>.*?</section>", (tmp_path / "page.html").read_text(), re.DOTALL)
        assert len(re.findall(r"alt='image'", section)) == images * 2  # closeups
