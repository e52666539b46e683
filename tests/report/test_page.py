"""The page of `polygrain report` in a real browser: what a person would see, click and get."""

import json
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from polygrain.data.scenes import Scenes
from polygrain.data.sources import open_images
from polygrain.evaluate.features import extract
from polygrain.evaluate.pixels import RawPixels
from polygrain.parts.encoder import Encoder, EncoderSettings
from polygrain.report.building import write_model_report
from polygrain.report.settings import ReportSettings
from tests.report.browser import Browser, chromium

COUNT = 60
READY = "performance.getEntriesByName('ready').length > 0"


def small_vit():
    torch.manual_seed(0)
    arguments = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}
    return Encoder(EncoderSettings(name="vit_tiny_patch16_224", arguments=arguments)).eval()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Two models, one of them of the page's own size, the other shown larger images."""
    path = tmp_path_factory.mktemp("report") / "page.html"
    settings = ReportSettings(images=COUNT, changed=10, closeups=1, workers=0, size=32)
    write_model_report([RawPixels(image_size=32), small_vit()], Scenes(COUNT, size=32, seed=3), path, settings)
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if chromium() is None:
        pytest.skip("NOT TESTED in a browser: the page needs Chromium or Chrome on the PATH (apt install chromium)")
    found = Browser(tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


@pytest.fixture
def page(browser, report):
    browser.errors.clear()
    browser.requests.clear()
    browser.open(report.as_uri())
    browser.wait(READY)
    return browser


def shown(page, selector):
    """Numbers of the images under a selector, in order."""
    return page.run(f"[...document.querySelectorAll({json.dumps(selector)})].map((e) => Number(e.dataset.image))")


def nearest_by_numpy(vectors, query, kept):
    unit = vectors.double().numpy()
    unit /= np.linalg.norm(unit, axis=-1, keepdims=True)
    return [i for i in np.argsort(-(unit @ unit[query]), kind="stable").tolist() if i != query][:kept]


def test_it_loads_without_complaint_and_asks_for_nothing_but_itself(page, report):
    for selector in ("#wall > :nth-child(3)", "#large", "#plane canvas", ".more", "[name=pictures]", "summary"):
        page.click(selector)
    assert page.errors == []
    asked = {address for address in page.requests if not address.startswith(("data:", "blob:"))}
    assert asked == {report.as_uri()}


def test_the_page_itself_forbids_to_load_anything(page):
    page.run("document.body.append(Object.assign(new Image(), { src: 'http://127.0.0.1:9/x.png', id: 'probe' }))")
    page.wait("document.querySelector('#probe').complete")
    assert any("Content Security Policy" in told for told in page.errors)


def test_a_click_on_an_image_shows_the_neighbours_that_numpy_finds(page):
    images = Scenes(COUNT, size=32, seed=3)
    for query in (0, 17, COUNT - 1):
        page.click(f"#wall [data-image='{query}']")
        for number, encoder in enumerate((RawPixels(image_size=32), small_vit())):
            vectors = extract(encoder, images, size=32).pooled
            found = shown(page, f"#similar [data-model='{number}'] .thumb")
            assert found == nearest_by_numpy(vectors, query, 8)


def test_a_click_on_a_neighbour_makes_it_the_chosen_image(page):
    page.click("#wall [data-image='5']")
    (first, *_) = shown(page, "#similar .thumb")
    page.click("#similar .thumb")
    assert page.run("document.querySelector('#chosen-name').textContent") == f"scenes:3:{first}"


@pytest.mark.parametrize(("across", "down", "cell"), [(0.1, 0.1, 0), (0.9, 0.3, 7), (0.4, 0.8, 13)])
def test_a_click_on_a_patch_shows_the_regions_most_like_it(page, across, down, cell):
    """By the full vectors: what is shown is at most a rounding of the codes less alike than the true nearest."""
    page.click("#wall [data-image='9']")
    page.click("#large", across, down)
    encoder = RawPixels(patch_size=8, image_size=32)
    patches = F.normalize(extract(encoder, Scenes(COUNT, size=32, seed=3), size=32, patches=True).patches, dim=-1)
    cosines = patches @ patches[9, cell]  # (n, N)
    cosines[9] = -1
    true = cosines.max(1).values.sort(descending=True).values[:8]
    script = "[...document.querySelectorAll(\"#regions [data-model='0'] .region\")].map((e) => e.dataset.cell)"
    cells = list(map(int, page.run(script)))
    images = shown(page, "#regions [data-model='0'] .region")
    found = torch.stack([cosines[i, j] for i, j in zip(images, cells, strict=True)])
    assert len(set(images)) == 8
    assert 9 not in images
    assert (true - found).max() < 0.02
    assert len(shown(page, "#regions [data-model='1'] .region")) == 8


def test_a_patch_that_is_there_twice_is_found_again(page):
    """Its own cell in the same image has distance 0, and no other has less."""
    zero, least = page.run(
        "(() => { const m = data.models[0]; codesOf(m); const all = m.codes.length / m.dims;"
        "const d = Array.from({ length: all }, (_, j) => away(m, 77, j)); return [d[77], Math.min(...d)]; })()"
    )
    assert zero == least == 0


def test_the_cosine_of_a_region_is_about_that_of_the_vectors(tmp_path, page):
    """Noise, of which codes keep less than half: 64 of 192 directions alone would tell 0.1 too much."""
    folder = tmp_path / "noise"
    folder.mkdir()
    for i in range(40):
        pixels = np.random.default_rng(i).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:02d}.png")
    settings = ReportSettings(workers=0, size=32, closeups=1, changed=10)
    encoder = RawPixels(patch_size=8, image_size=32)
    write_model_report([encoder], folder, tmp_path / "page.html", settings)
    page.open((tmp_path / "page.html").as_uri())
    page.wait(READY)
    page.click("#wall [data-image='9']")
    page.click("#large", 0.4, 0.8)
    patches = F.normalize(extract(encoder, open_images(folder), size=32, patches=True).patches, dim=-1)
    script = (
        "[...document.querySelectorAll('#regions .region')].map((e) => [+e.dataset.image, +e.dataset.cell, e.title])"
    )
    found = page.run(script)
    assert len(found) == 16
    for image, cell, told in found:
        true = float(patches[image, cell] @ patches[9, 13])
        assert float(told.rpartition("about ")[2]) == pytest.approx(true, abs=0.04)


@pytest.mark.parametrize("width", [1024, 420])
def test_on_a_narrow_window_a_click_is_answered_in_sight(page, width):
    page.call("Emulation.setDeviceMetricsOverride", width=width, height=768, deviceScaleFactor=1, mobile=False)
    try:
        page.click("#groups .thumb:nth-child(2)")
        chosen = page.run("state.image")
        assert chosen != 0
        assert page.run("$('#chosen-name').textContent") == f"scenes:3:{chosen}"
        top, bottom, height = page.run(
            "(() => { const { top, bottom } = $('#chosen-name').getBoundingClientRect();"
            "return [top, bottom, innerHeight]; })()"
        )
        assert 0 <= top < bottom <= height
        clicked = page.run("document.elementFromPoint(innerWidth / 2, innerHeight - 20).closest('#inspector') !== null")
        assert clicked  # the drawer, and not what lies beneath it
    finally:
        page.call("Emulation.setDeviceMetricsOverride", width=1366, height=768, deviceScaleFactor=1, mobile=False)


def test_the_contents_take_one_line_and_hide_no_heading(page):
    page.run(
        "$('nav').append(...Array.from({ length: 20 }, (_, i) => make('a', { href: '#x' }, `Training of run ${i}`)))"
    )
    assert page.run("$('nav').offsetHeight") == 44
    page.run("$('html').style.scrollBehavior = 'auto'; location.hash = '#groups'")
    page.wait("Math.abs(scrollY) > 100")
    below, heading = page.run("[$('nav').getBoundingClientRect().bottom, $('#groups h2').getBoundingClientRect().top]")
    assert heading >= below


def test_regions_that_a_model_sees_less_of_stand_where_they_are(page):
    """A model that sees half of each side: the middle quarter of the thumbnail is all its cells."""
    cells, box = page.run(
        "(() => { const half = { share: 0.5, grid: [4, 4] };"
        "const at = [[0.26, 0.26], [0.74, 0.26], [0.5, 0.6], [0, 1]].map((p) => cellAt(half, 0, p));"
        "return [at, boxOf(half, 0, 5)]; })()"
    )
    assert cells == [0, 12, 10, 3]
    assert box == [0.375, 0.375, 0.125, 0.125]


def test_the_map_tells_images_apart_and_follows_the_mouse(page):
    places = page.run("Array.from({ length: count }, (_, i) => spot(i))")
    assert len({(round(x), round(y)) for x, y in places}) > COUNT / 2
    width, height = page.run("[map.clientWidth, map.clientHeight]")
    alone = max(
        range(COUNT),
        key=lambda i: min(np.hypot(*np.subtract(places[i], other)) for j, other in enumerate(places) if j != i),
    )
    page.hover("#plane canvas", places[alone][0] / width, places[alone][1] / height)
    assert not page.run("tip.hidden")
    assert f"scenes:3:{alone}" in page.run("tip.textContent")
    page.click("#plane canvas", places[alone][0] / width, places[alone][1] / height)
    assert page.run("state.image") == alone


def test_groups_hold_every_image_once_and_open_on_a_click(page):
    sizes = page.run("data.models[0].sizes")
    assert sum(sizes) == COUNT
    assert sizes == sorted(sizes, reverse=True)
    while page.run("document.querySelector(\"#contacts .more[aria-expanded='false']\") !== null"):
        page.click("#contacts .more[aria-expanded='false']")
    assert sorted(shown(page, "#contacts .thumb")) == list(range(COUNT))


def test_another_model_can_be_chosen(page):
    before = page.run("document.querySelector('#contacts').textContent")
    page.click("#groups .choose button:nth-child(2)")
    assert page.run("state.model.number") == 1
    assert page.run("document.querySelector('#contacts').textContent") != before


def test_it_works_from_the_keyboard(page):
    page.run("document.querySelector('#wall').firstChild.focus()")
    page.key("ArrowRight")
    page.key("Enter")
    assert page.run("state.image") == 1
    page.run("document.querySelector('#large').focus()")
    page.key("ArrowDown")
    assert len(shown(page, "#regions [data-model='0'] .region")) == 8
    page.run("document.querySelector('#plane canvas').focus()")
    page.run("select([...Array(count).keys()].sort((a, b) => spot(b)[0] - spot(a)[0])[0])")  # the rightmost
    before = page.run("spot(state.image)")
    page.key("ArrowLeft")
    assert page.run("spot(state.image)")[0] < before[0]


def test_the_filter_leaves_what_was_asked_for(page):
    page.run("$('#search').value = 'castle'; $('#search').dispatchEvent(new Event('input'))")
    names = page.run("[...wall.children].filter((e) => !e.hidden).map((e) => labelOf(Number(e.dataset.image)))")
    assert names == ["castle"] * 4  # 60 images of 15 kinds


def test_every_heading_of_the_contents_is_there(report):
    text = report.read_text()
    links = re.findall(r"<a href='#([\w-]+)'", text)
    assert len(links) > 7
    assert all(text.count(f"id='{link}'") == 1 for link in links)


def test_every_picture_says_what_it_is(page):
    assert page.run("[...document.images].filter((picture) => !picture.alt && !picture.closest('.looks')).length") == 0
    assert (
        page.run("[...document.querySelectorAll('button')].filter((b) => !b.textContent && !b.ariaLabel).length") == 0
    )


def test_hostile_names_stay_text(tmp_path, page):
    folder = tmp_path / "set" / "<b onclick=alert(1)>&"
    folder.mkdir(parents=True)
    for i in range(3):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(
            folder / f"<!--<script>{i}.png"
        )
    path = tmp_path / "page.html"
    write_model_report(["pixels"], tmp_path / "set", path, ReportSettings(workers=0, size=32, closeups=1))
    page.open(path.as_uri())
    page.wait(READY)
    assert page.errors == []
    assert page.run("document.querySelector('#chosen-name').textContent").endswith("<!--<script>0.png")
    assert page.run("document.querySelectorAll('b[onclick]').length") == 0
