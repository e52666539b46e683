import base64
import io
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from polygrain.report.curves import curves, read_log
from polygrain.report.figures import data_uri, line_chart, running_mean, to_picture
from polygrain.report.html import Section, write_report
from polygrain.report.sections import frame, neighbours, numbers, patch_maps, picture


def pictures(n=12, size=20):
    random = torch.Generator().manual_seed(0)
    return [torch.randint(0, 256, (3, size, size), generator=random, dtype=torch.uint8) for _ in range(n)]


def opened(uri):
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))


def test_a_report_is_one_file_that_fetches_nothing(tmp_path):
    scores = {"raw pixels": {"kNN": 0.1}, "trained": {"kNN": 0.5}}
    log = [{"step": s, "epoch": s / 10, "loss": 1 / s, "features/pooled_spread": 0.5} for s in range(1, 5)]
    images, vectors = pictures(), torch.randn(12, 5)
    sections = [
        numbers(scores),
        curves(log),
        neighbours(images, {"trained": vectors}, [0, 1]),
        patch_maps(images[:2], {"trained": torch.randn(2, 4, 6)}, {"trained": (2, 2)}),
        picture(Image.new("RGB", (30, 20)), title="Crops"),
    ]
    path = write_report(tmp_path / "new" / "report.html", title="A <title>", subtitle="on & on", sections=sections)
    text = path.read_text()
    assert "A &lt;title&gt;" in text
    assert "on &amp; on" in text
    for address in re.findall(r"(?:src|href|url)\s*[=(]\s*['\"]?([^'\"\s>)]+)", text):
        assert address.startswith(("data:image/", "#")), address
    assert "<script" not in text
    assert "@import" not in text


def test_numbers_mark_the_best_of_each_column():
    scores = {"a": {"kNN": 0.25, "mIoU": 0.5}, "b": {"kNN": 0.125, "mIoU": 0.75}}
    rows = re.findall(r"<th scope=row>(\w)</th>(.*?)</tr>", numbers(scores, chance={"kNN": 0.1}).body)
    best = {name: re.findall(r"class=best><b>([\d.]+%)", cells) for name, cells in rows}
    assert best == {"a": ["25.0%"], "b": ["75.0%"]}
    assert "chance 10.0%" in numbers(scores, chance={"kNN": 0.1}).body


def test_curves_draw_every_number_of_the_log_once(tmp_path):
    records = [
        {"step": 1, "epoch": 0.1, "instance/info_nce": 2.0, "loss": 3.0, "lr": 0.1, "name": "text"},
        {"step": 2, "epoch": 0.2, "loss": "nan", "features/pooled_spread": 0.5, "features/patches_spread": 0.25},
        {"step": 3, "probe/knn20_top1": 0.125, "gauges/group/teacher_entropy": 1.5},
    ]
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, records)) + "\n")
    body = curves(read_log(tmp_path / "log.jsonl").records).body
    names = re.findall(r"<figcaption><span title='[^']*'>(.*?)</span>", body)
    assert names == ["loss", "instance/info_nce", "knn20_top1", "spread", "group/teacher_entropy", "lr"]
    assert body.count("<svg") == 6
    assert "pooled 0.5" in body
    assert "patches 0.25" in body


def test_a_half_written_last_line_is_left_out_and_any_other_bad_line_is_named(tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    assert read_log(log) == ([{"step": 1, "loss": 2.0}], True)
    log.write_text('{"step": 1, "loss": 2.0}\n')
    assert not read_log(log).torn
    log.write_text('{"step": 1}\n{"step": 2, "lo\n{"step": 3}\n')
    with pytest.raises(ValueError, match=r"log.jsonl, line 2 is no JSON: Unterminated string"):
        read_log(log)
    log.write_text('{"step": 1}\n[3]\n')
    with pytest.raises(ValueError, match="line 2 has no step"):
        read_log(log)


def test_a_step_that_a_resumed_run_took_again_counts_once():
    records = [{"step": s, "loss": 1.0} for s in (1, 2, 3)] + [{"step": s, "loss": 5.0} for s in (2, 3)]
    assert "<span>5</span>" in curves(records).body


def test_charts_take_their_colours_from_the_page():
    svg = line_chart({"a": ([1, 2], [3, 4]), "b": ([1, 2], [4, 3])}, last_step=2)
    assert svg.startswith("<svg")
    assert {"var(--series-1)", "var(--series-2)", "var(--muted)", "var(--grid)"} <= set(
        re.findall(r"var\([^)]*\)", svg)
    )
    assert svg == line_chart({"a": ([1, 2], [3, 4]), "b": ([1, 2], [4, 3])}, last_step=2)


def test_the_running_mean_keeps_straight_lines_and_leaves_out_the_ends():
    line = [0.5 * step for step in range(60)]
    assert running_mean(line) == pytest.approx(line[3:-3])  # 60 // 20 on either side
    random = np.random.default_rng(0).normal(size=100)
    assert running_mean(random)[45] == pytest.approx(random[45:56].mean())
    assert running_mean([1.0, 5.0, 3.0]).tolist() == [1.0, 5.0, 3.0]


def test_neighbours_are_the_nearest_other_images_in_order():
    images = pictures()
    angles = torch.linspace(0, 1.5, 12)
    vectors = torch.stack([angles.cos(), angles.sin()], dim=1)
    body = neighbours(images, {"trained": vectors}, [0], count=3).body
    shown = re.findall(r"alt='neighbour' src='([^']+)'", body)
    assert shown == [data_uri(to_picture(images[i])) for i in (1, 2, 3)]


def test_a_query_is_left_out_even_where_another_image_is_its_twin():
    vectors = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    images = pictures(4)
    shown = re.findall(r"alt='neighbour' src='([^']+)'", neighbours(images, {"t": vectors}, [1], count=2).body)
    assert shown == [data_uri(to_picture(images[i])) for i in (0, 3)]


def test_frames_tell_fine_from_coarse_classes():
    fine, coarse = torch.tensor([0, 0, 1, 2]), torch.tensor([0, 0, 0, 1])
    assert [frame(0, i, [fine, coarse]) for i in (1, 2, 3)] == ["same", "near", "other"]
    assert [frame(0, i, [fine]) for i in (1, 2)] == ["same", "other"]
    assert frame(0, 1, []) == ""


def test_pictures_survive_the_way_into_the_page():
    pixels = pictures(1)[0]
    exact = np.asarray(opened(data_uri(to_picture(pixels), lossless=True)))
    assert np.array_equal(exact, pixels.permute(1, 2, 0).numpy())
    assert opened(data_uri(Image.new("RGB", (300, 150)), side=128)).size == (128, 64)


def test_patch_maps_have_one_pixel_for_each_patch():
    body = patch_maps(pictures(2), {"trained": torch.randn(2, 6, 5)}, {"trained": (2, 3)}).body
    cells = re.findall(r"class=cells alt='trained' src='([^']+)'", body)
    assert [opened(uri).size for uri in cells] == [(3, 2), (3, 2)]


def test_sections_escape_text():
    assert "&lt;b&gt;" in numbers({"<b>": {"x": 0.5}}).body
    assert isinstance(numbers({"a": {"x": 0.5}}), Section)
