import functools
import io
import json
import multiprocessing
import os
import signal
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from polygrain.cli import main
from polygrain.data.crew import Lost, in_workers
from polygrain.data.duplicates import first_equal, first_near
from polygrain.data.escaping import escaped, unescaped
from polygrain.data.inspection import Inspection, inspect_images
from polygrain.data.looking import difference_hashes
from polygrain.data.quarantine import leave_out, read_list, write_list
from polygrain.data.scenes import Scenes
from polygrain.data.sources import open_images
from tests.data.test_shards import png
from tests.data.test_shards import write as write_shard

ODD_NAMES = [b"caf\xe9.png", b"new\nline.png", b"tab\t.png", b"\x1b[31mred.png", b"back\\x41.png", b"#.png", b" a .png"]


def noise(seed: int, size: tuple[int, int] = (48, 40), channels: int = 3) -> Image.Image:
    """Coarse enough to survive JPEG and shrinking."""
    pixels = np.random.default_rng(seed).integers(0, 256, (5, 6, channels), dtype=np.uint8)
    return Image.fromarray(pixels.squeeze()).resize(size, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)  # type: ignore[arg-type]
    return file.getvalue()


def bomb(side: int) -> bytes:
    """A PNG that says it has side x side pixels, in a few bytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")

    size = side.to_bytes(4, "big")
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size * 2 + bytes([8, 2, 0, 0, 0]))
    return start + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one file or two of every kind."""
    root = tmp_path_factory.mktemp("zoo")
    exif = Image.Exif()
    exif[0x0112] = 6
    jpeg, plain = encoded(noise(1), "JPEG", quality=95), encoded(noise(2), "PNG")
    clear = noise(3)
    clear.putalpha(Image.linear_gradient("L").resize(clear.size))
    deep = Image.fromarray(np.asarray(noise(4).convert("L")).astype(np.uint16) * 257)
    files = {
        "a-plain.jpg": jpeg,
        "b-plain.png": plain,
        "c-empty.jpg": b"",
        "d-cut.jpg": jpeg[: len(jpeg) // 2],
        "d-cut.png": plain[: len(plain) // 2],
        "d-cut.webp": encoded(noise(5), "WEBP")[:-100],
        "d-cut.gif": encoded(noise(6), "GIF")[:-100],
        "d-cut.bmp": encoded(noise(7), "BMP")[:-100],
        "e-page.jpg": b"<!DOCTYPE html><html><body>404</body></html>",
        "f-bomb.png": bomb(20_000),
        "g-damaged.png": plain[:60] + b"\0\0\0\0" + plain[64:],
        "h-black.png": encoded(Image.new("RGB", (40, 40)), "PNG"),
        "i-copy-of-b.png": plain,
        "j-pixels-of-b.bmp": encoded(noise(2), "BMP"),
        "k-like-a.jpg": encoded(noise(1).resize((96, 80)), "JPEG", quality=60),
        "l-tiny.png": encoded(noise(8, (31, 60)), "PNG"),
        "m-wide.png": encoded(noise(9, (300, 60)), "PNG"),
        "n-deep.png": encoded(deep, "PNG"),
        "n-deep.tif": encoded(deep.transpose(Image.Transpose.ROTATE_90), "TIFF"),
        "o-cmyk.jpg": encoded(noise(10).convert("CMYK"), "JPEG"),
        "p-animated.gif": encoded(noise(11), "GIF", save_all=True, append_images=[noise(12)]),
        "p-pages.tif": encoded(noise(13), "TIFF", save_all=True, append_images=[noise(14)]),
        "q-turned.jpg": encoded(noise(15), "JPEG", exif=exif),
        "r-clear.png": encoded(clear, "PNG"),
        "s-palette.png": encoded(noise(16).quantize(16), "PNG"),
        "t-gray.jpg": encoded(noise(17).convert("L"), "JPEG"),
    }
    for name, content in files.items():
        (root / name).write_bytes(content)
    return root


def listed(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


WANTED = {
    "empty": ["c-empty.jpg"],
    "truncated": ["d-cut.bmp", "d-cut.gif", "d-cut.jpg", "d-cut.png", "d-cut.webp"],
    "not an image": ["e-page.jpg"],
    "too large": ["f-bomb.png"],
    "undecodable": ["g-damaged.png"],
    "constant": ["h-black.png"],
    "duplicate": ["i-copy-of-b.png", "j-pixels-of-b.bmp"],
    "near duplicate": ["k-like-a.jpg"],
    "tiny": ["l-tiny.png"],
    "extreme aspect": ["m-wide.png"],
    "16 bits": ["n-deep.png", "n-deep.tif"],
    "CMYK": ["o-cmyk.jpg"],
    "several pictures": ["p-animated.gif", "p-pages.tif"],
    "rotated by EXIF": ["q-turned.jpg"],
    "alpha": ["r-clear.png"],
    "palette": ["d-cut.gif", "p-animated.gif", "s-palette.png"],
    "gray": ["n-deep.png", "n-deep.tif", "t-gray.jpg"],
}


def found_names(inspection: Inspection) -> dict[str, list[str]]:
    return {kind: [inspection.images.name(int(i)) for i in places] for kind, places in inspection.found.items()}


def test_every_kind_of_file_is_found_and_named(zoo: Path):
    found = found_names(inspect_images(open_images(zoo)))
    palette = found.pop("palette")
    assert set(palette) >= {"s-palette.png"} and set(palette) <= set(WANTED["palette"])
    assert found == {kind: names for kind, names in WANTED.items() if kind != "palette"}


def test_workers_find_the_same(zoo: Path):
    images = open_images(zoo)
    alone, crew = inspect_images(images), inspect_images(images, workers=2)
    assert crew.json() == alone.json()
    assert (crew.sizes == alone.sizes).all()


def test_counts_shares_and_sizes_are_those_of_the_folder(zoo: Path):
    inspection = inspect_images(open_images(zoo))
    names = listed(zoo)
    assert inspection.counts["truncated"] == 5
    assert inspection.bad == 9 and inspection.bad_fraction == 9 / len(names)
    assert inspection.sizes["size"].tolist() == [(zoo / name).stat().st_size for name in names]
    sides = inspection.sides()
    assert sides["shorter side, px"]["min"] == 31 and sides["longer side, px"]["max"] == 300
    told = inspection.summary()
    assert "9 cannot be used" in told and "'c-empty.jpg': the file is empty" in told and "\n" not in told


def test_the_table_names_examples_and_the_json_every_name(zoo: Path):
    inspection = inspect_images(open_images(zoo))
    table = inspection.table()
    assert "truncated" in table and "'d-cut.bmp', 'd-cut.gif', 'd-cut.jpg', ..." in table
    told = json.loads(inspection.json())
    names = [image["name"] for image in told["findings"]["truncated"]["images"]]
    assert names == WANTED["truncated"]
    copies = told["findings"]["duplicate"]["images"]
    assert [copy["reason"] for copy in copies] == ["duplicate of b-plain.png"] * 2


def test_the_quarantine_holds_what_hurts_and_leaving_it_out_leaves_the_rest(zoo: Path, tmp_path: Path):
    images = open_images(zoo)
    write_list(tmp_path / "list.txt", inspect_images(images).quarantine())
    hurtful = ("empty", "truncated", "not an image", "too large", "undecodable", "constant", "duplicate")
    unwanted = [name for kind in hurtful for name in WANTED[kind]]
    assert sorted(read_list(tmp_path / "list.txt")) == sorted(unwanted)
    kept = leave_out(images, tmp_path / "list.txt")
    assert [kept.name(i) for i in range(len(kept))] == [n for n in listed(zoo) if n not in unwanted]
    again = inspect_images(kept)
    assert again.bad_fraction == 0 and not set(again.found) & set(hurtful)
    place = [kept.name(i) for i in range(len(kept))].index("q-turned.jpg")
    assert torch.equal(kept.decode(place), images.decode(listed(zoo).index("q-turned.jpg")))


def test_labels_and_class_numbers_stay_when_images_are_left_out(tmp_path: Path):
    for name in ("ant/1.png", "bee/2.png", "cat/3.png", "cat/4.png"):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_bytes(png(int(name[4])))
    images = open_images(tmp_path / "data")
    write_list(tmp_path / "list", [("bee/2.png", "x"), ("cat/3.png", "y")])
    kept = leave_out(images, tmp_path / "list")
    labels = kept.labels()
    assert labels is not None and labels.tolist() == [0, 2] and kept.classes == ["ant", "bee", "cat"]
    assert [kept.label(i) for i in range(2)] == [0, 2] and int(kept.decode(1)[0, 0, 0]) == 4
    assert kept.fingerprint() != images.fingerprint()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"other.png\t?\n", r"1 of the 1 names .* not in the data, such as 'other.png' \(a name there: '0.png'\)"),
        (b"0.png\n1.png\n", "names all 2 images"),
        (b"# fine\n\\q.png\n", "line 2 of .*backslash"),
        (b"\xff\xfe", "is no list of names"),
    ],
)
def test_a_list_that_does_not_fit_is_an_error_in_one_line(tmp_path: Path, content: bytes, message: str):
    for i in range(2):
        (tmp_path / f"{i}.png").write_bytes(png(i))
    (tmp_path / "list").write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        leave_out(open_images(tmp_path), tmp_path / "list")
    assert "\n" not in str(error.value)


def test_a_name_of_the_list_that_is_gone_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(png(i))
    (tmp_path / "list").write_text("0.png\ngone.png\n")
    assert len(leave_out(open_images(tmp_path), tmp_path / "list")) == 2
    assert "1 of the 2 names" in capsys.readouterr().err


@pytest.mark.parametrize("raw", [*ODD_NAMES, "漢字 é.png".encode(), "\u202egpj.png".encode(), b"\\x5c.png", b"a\r.png"])
def test_any_name_survives_a_list(tmp_path: Path, raw: bytes):
    name = os.fsdecode(raw)
    text = escaped(name)
    assert text.isprintable() and unescaped(text) == name
    write_list(tmp_path / "list", [(name, "line\nbreak\tand tab"), ("last", "")])
    assert read_list(tmp_path / "list") == [name, "last"]


def test_odd_names_are_told_without_line_breaks_or_terminal_escapes(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    root = tmp_path / "data"
    root.mkdir()
    for name in ODD_NAMES:
        Path(os.fsdecode(os.fsencode(root) + b"/" + name)).write_bytes(b"")
    (root / "good.png").write_bytes(encoded(noise(0), "PNG"))
    arguments = ["--quarantine", str(tmp_path / "list"), "--json", str(tmp_path / "json"), "--workers", "0"]
    assert main(["inspect", str(root), *arguments]) == 0
    images = open_images(root)
    images.decode(0)
    told = capsys.readouterr()
    assert all(line.isprintable() for line in (told.out + told.err).split("\n"))
    assert len(read_list(tmp_path / "list")) == len(ODD_NAMES)
    assert len(leave_out(images, tmp_path / "list")) == 1
    listed = json.loads((tmp_path / "json").read_text())["findings"]["empty"]["images"]
    assert {os.fsencode(unescaped(image["name"])) for image in listed} == set(ODD_NAMES)


def test_a_sample_is_the_same_for_a_seed_and_looks_for_no_duplicates():
    images = Scenes(200, size=16)
    one, same, other = (inspect_images(images, sample=20, seed=seed) for seed in (1, 1, 2))
    assert len(one.places) == 20 and len(set(one.places.tolist())) == 20
    assert (one.places == same.places).all() and (one.places != other.places).any()
    assert one.counts == {"tiny": 20} and not one.sizes["pixels"].any()
    assert len(inspect_images(images, sample=1000).places) == 200


def test_wrong_numbers_are_refused():
    with pytest.raises(ValueError, match="sample is 0"):
        inspect_images(Scenes(2), sample=0)


def test_a_bomb_is_read_from_its_header_alone(tmp_path: Path):
    (tmp_path / "bomb.png").write_bytes(bomb(20_000))
    images = open_images(tmp_path)
    start = time.perf_counter()
    inspection = inspect_images(images)
    assert inspection.counts == {"too large": 1}
    assert "20000x20000" in inspection.reasons[0]
    assert time.perf_counter() - start < 0.5  # 400 million pixels take seconds, and more memory than most machines have


def test_equal_hashes_point_to_the_first():
    hashes = np.array([7, 3, 7, 9, 3, 7], np.uint64)
    assert first_equal(hashes).tolist() == [0, 1, 0, 3, 1, 0]


@pytest.mark.parametrize("skewed", [False, True])
def test_near_hashes_are_those_that_comparing_all_pairs_finds(skewed: bool):
    random = np.random.default_rng(0)
    centres = random.integers(0, 2**63, 40, dtype=np.uint64)
    hashes = centres[random.integers(0, 40, 1500)]
    if skewed:  # most bits in common, as in flat pictures: bands alone do not tell them apart
        hashes = random.integers(0, 2**16, 1500, dtype=np.uint64) << np.uint64(24)
    for _ in range(1 if skewed else 2):
        hashes ^= np.uint64(1) << random.integers(0, 64, 1500).astype(np.uint64)
    bits = np.unpackbits(hashes.view(np.uint8).reshape(-1, 8), axis=1).astype(np.int32)
    distances = (bits[:, None] != bits[None]).sum(2, dtype=np.int32)
    others = np.where(random.random(1500) < 0.5, np.uint64(0b111111), np.uint64(1 << 50))  # 7 bits apart
    wanted = ((distances <= 4) & (others[:, None] == others)).argmax(1)
    assert (first_near(hashes, others) == wanted).all()
    assert 100 < (wanted != np.arange(1500)).sum() < 1500


def test_hashes_are_near_up_to_four_and_six_bits():
    one, other = np.array([0, 0b1111, 0b111110], np.uint64), np.array([0, 63, 63], np.uint64)
    assert first_near(one, other).tolist() == [0, 0, 1]
    assert first_near(one[:2], other[:2] * np.uint64(2) + np.arange(2, dtype=np.uint64)).tolist() == [0, 1]


def test_the_difference_hashes_say_which_neighbour_is_brighter():
    rising = torch.arange(90, dtype=torch.uint8).expand(3, 72, 90).contiguous()
    assert difference_hashes(rising) == (2**64 - 1, 0)
    assert difference_hashes(rising.flip(2)) == (0, 0)
    assert difference_hashes(rising.transpose(1, 2)) == (0, 2**64 - 1)
    half = torch.cat([rising[:, :32], rising.flip(2)[:, 32:]], 1)  # four of nine rows of places rise
    assert difference_hashes(half)[0] == (2**32 - 1) << 32
    for size in ((1, 1), (1, 300), (7, 8), (8, 9), (3, 2000)):
        assert difference_hashes(torch.zeros(3, *size, dtype=torch.uint8)) == (0, 0)


def test_the_difference_hashes_survive_a_change_of_size_and_quality(real_images: Path):
    images = open_images(real_images / "caltech" / "val.tar")
    near = 0
    for i in range(60):
        photo = Image.fromarray(images.decode(i).permute(1, 2, 0).numpy())
        small = photo.resize((photo.width // 2, photo.height // 2), Image.Resampling.LANCZOS)
        copy = np.array(Image.open(io.BytesIO(encoded(small, "JPEG", quality=60))))
        hashes = difference_hashes(images.decode(i)), difference_hashes(torch.from_numpy(copy).permute(2, 0, 1))
        across, down = np.array(hashes, np.uint64).T
        near += int(first_near(across, down)[1] == 0)
    assert near >= 54


def fragile(how: str, i: int) -> int:
    """Looks at an image; number 5 is fatal, or takes forever."""
    if i == 5 and how == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if i == 5 and how == "exit":
        os._exit(7)
    if i == 5 and how == "hang":
        time.sleep(60)
    return i * i


@pytest.mark.parametrize(
    ("how", "reason"),
    [("crash", "signal 11 (SIGSEGV)"), ("exit", "ended with code 7"), ("hang", "no result after 2 s")],
)
def test_a_worker_that_dies_or_hangs_costs_its_image_alone(how: str, reason: str):
    results = dict(in_workers(functools.partial(fragile, how), np.arange(40), workers=2, patience=2))
    lost = results.pop(5)
    assert isinstance(lost, Lost) and reason in lost.reason
    assert results == {i: i * i for i in range(40) if i != 5}
    assert not [process for process in multiprocessing.active_children() if process.name.startswith("inspect")]


def test_shards_are_inspected_like_folders(tmp_path: Path):
    noisy = encoded(noise(1), "PNG")
    write_shard(tmp_path / "0.tar", {"a.png": noisy, "b.png": b"", "c.png": noisy, "../../d.png": noisy[:-30]})
    inspection = inspect_images(open_images(tmp_path / "0.tar"))
    assert inspection.counts == {"empty": 1, "truncated": 1, "duplicate": 1}
    listed = dict(inspection.quarantine())
    assert listed[f"{tmp_path}/0.tar:c.png"] == f"duplicate of {tmp_path}/0.tar:a.png"
    assert f"{tmp_path}/0.tar:../../d.png" in listed


def test_the_command_prints_a_table_and_what_the_scan_left_out(
    zoo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "1.png").write_bytes(encoded(noise(1), "PNG"))
    for name in ("logo.svg", ".DS_Store", "._1.png", "Thumbs.db"):
        (tmp_path / "data" / name).touch()
    assert main(["inspect", str(tmp_path / "data"), "--workers", "0"]) == 0
    told = capsys.readouterr().out
    for line in ("1 of 1 images looked at", "Left out by the scan", "unsupported .svg", "'Thumbs.db'", "'._1.png'"):
        assert line in told
