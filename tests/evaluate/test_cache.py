import numpy as np
import pytest
import torch
from PIL import Image

from polygrain import distributed
from polygrain.data.scenes import Scenes
from polygrain.data.sources import open_images
from polygrain.evaluate import cache
from polygrain.evaluate.features import Views
from polygrain.evaluate.models import open_model
from polygrain.evaluate.settings import FeatureSettings
from polygrain.parts.encoder import Encoder, EncoderSettings
from tests.ranks import run_ranks

TINY = EncoderSettings(
    name="vit_tiny_patch16_224",
    arguments={"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 1, "num_heads": 3},
)


def encoder(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Encoder(TINY)


@pytest.fixture
def folder(tmp_path):
    random = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for i in range(10):
        Image.fromarray(random.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(tmp_path / "images" / f"{i}.png")
    return tmp_path


def settings(folder, **changes):
    return FeatureSettings(cache=str(folder / "cache"), workers=0, batch_size=2, **changes)


def features(folder, model=None, size=32, **changes):
    images = open_images(str(folder / "images"))
    views = Views(images, size)
    return cache.features(open_model(model or encoder()), views, np.arange(10), settings(folder, **changes))


@pytest.fixture(autouse=True)
def chunks_of_four(monkeypatch):
    monkeypatch.setattr(cache, "CHUNK", 4)


def files(folder):
    return {file.name: file.stat().st_mtime_ns for file in (folder / "cache" / "features").glob("*.safetensors")}


def test_a_second_evaluation_reads_no_image_and_gives_the_same_bits(folder, monkeypatch):
    first, told = features(folder)
    assert told == ""
    assert len(files(folder)) == 3
    monkeypatch.setattr("polygrain.data.folders.FolderImages.load", None)  # calling it would fail
    second, told = features(folder)
    assert torch.equal(first.pooled, second.pooled)
    assert torch.equal(first.positions, second.positions)
    assert "features of 10 images came from" in told


def test_features_from_disk_are_those_without_a_cache(folder):
    kept, _ = features(folder)
    fresh, _ = cache.features(
        open_model(encoder()),
        Views(open_images(str(folder / "images")), 32),
        np.arange(10),
        FeatureSettings(cache="none", workers=0, batch_size=2),
    )
    assert torch.equal(kept.pooled, fresh.pooled)


def test_a_torn_chunk_is_written_again(folder):
    first, _ = features(folder)
    torn = next((folder / "cache" / "features").glob("*.safetensors"))
    whole = torn.read_bytes()
    torn.write_bytes(whole[: len(whole) // 2])
    again, told = features(folder)
    assert torch.equal(first.pooled, again.pooled)
    assert torn.read_bytes() == whole
    assert "images came from" in told


@pytest.mark.parametrize("what", ["weights", "size", "resize", "aspect", "readout", "file"])
def test_what_changes_the_features_changes_the_key(folder, what):
    features(folder)
    before = files(folder)
    changes = {"resize": {"resize": 40}, "aspect": {"aspect": "native"}, "readout": {"readout": "cls1"}}.get(what, {})
    if what == "file":
        Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(folder / "images" / "0.png")
    images = open_images(str(folder / "images"))
    views = Views(images, 40 if what == "size" else 32, changes.get("resize"), aspect=changes.get("aspect", "square"))
    model = open_model(encoder(seed=1 if what == "weights" else 0))
    cache.features(model, views, np.arange(10), settings(folder, **changes))
    assert len(files(folder)) == 2 * len(before)


def test_an_interrupted_extraction_goes_on_where_it_stopped(folder, monkeypatch):
    whole, _ = features(folder)
    for file in (folder / "cache" / "features").glob("*.safetensors"):
        file.unlink()
    load, read = type(open_images(str(folder / "images"))).load, []

    def stops_at_the_ninth(self, i):
        read.append(i)
        if i == 8:
            raise KeyboardInterrupt
        return load(self, i)

    monkeypatch.setattr("polygrain.data.folders.FolderImages.load", stops_at_the_ninth)
    with pytest.raises(KeyboardInterrupt):
        features(folder)
    assert len(files(folder)) == 2
    read.clear()
    monkeypatch.setattr("polygrain.data.folders.FolderImages.load", lambda self, i: read.append(i) or load(self, i))
    again, _ = features(folder)
    assert read == [8, 9]
    assert torch.equal(again.pooled, whole.pooled)


def two_ranks(folder):
    cache.CHUNK = 4
    images = open_images(str(folder / "images"))
    read = []
    load = images.load
    images.load = lambda i: read.append(i) or load(i)
    seen, _ = cache.features(open_model(encoder()), Views(images, 32), np.arange(10), settings(folder))
    distributed.barrier()
    return seen.pooled, read


def test_two_ranks_share_out_the_chunks_and_both_see_all(folder):
    (first, read_first), (second, read_second) = run_ranks(two_ranks, folder)
    assert read_first == [0, 1, 2, 3, 8, 9]
    assert read_second == [4, 5, 6, 7]
    assert torch.equal(first, second)
    assert torch.equal(first, features(folder)[0].pooled)


def test_several_processes_without_a_cache_are_refused(folder, monkeypatch):
    monkeypatch.setattr("polygrain.evaluate.cache.distributed.world_size", lambda: 2)
    with pytest.raises(ValueError, match="exchange features through the cache"):
        cache.features(
            open_model(encoder()),
            Views(open_images(str(folder / "images")), 32),
            np.arange(10),
            FeatureSettings(cache="none", workers=0),
        )


def test_the_share_of_a_rank_does_not_depend_on_what_others_have_written(tmp_path, monkeypatch):
    """A rank that looks late finds chunks of the others; between them, all chunks are still somebody's."""
    monkeypatch.setattr(cache, "CHUNK", 2)
    monkeypatch.setattr(cache.distributed, "world_size", lambda: 2)
    monkeypatch.setattr(cache.distributed, "barrier", lambda: None)
    settings = FeatureSettings(cache=str(tmp_path), workers=0, size=16)
    model, images = open_model("pixels"), Scenes(8, size=16)
    views, positions = Views(images, 16), np.arange(8)
    written, real = [], cache.write_durably
    monkeypatch.setattr(cache, "write_durably", lambda path, write: (written.append(path.name), real(path, write)))
    monkeypatch.setattr(cache.distributed, "rank", lambda: 0)
    with pytest.raises(KeyError):  # the other rank has not come yet
        cache.features(model, views, positions, settings)
    monkeypatch.setattr(cache.distributed, "rank", lambda: 1)
    found, _ = cache.features(model, views, positions, settings)
    assert len(written) == len(set(written)) == 4
    assert found.positions.tolist() == list(range(8))
