"""Seconds to list a source, and bytes of its index per image: what every worker sees of it.

    python benchmarks/listing.py --images 1000000

makes that many empty files in a folder of classes, and as many images (with as many labels) in one tar, in a temporary
folder that goes away at the end. "second time" is with the operating system's cache warm, as a restart finds it.
"""

import argparse
import gc
import resource
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from polygrain.data.folders import FolderImages
from polygrain.data.shards import ShardImages

PER_CLASS = 1000


def make_folder(root: Path, images: int) -> None:
    for i in range(images):
        if i % PER_CLASS == 0:
            folder = root / f"n{i // PER_CLASS:08}"
            folder.mkdir(parents=True)
        (folder / f"{folder.name}_{i:08}.JPEG").touch()


def make_shard(path: Path, images: int) -> None:
    """Headers by hand: the standard library would take minutes."""
    member = tarfile.TarInfo("00000000.jpg")
    jpeg = member.tobuf(tarfile.USTAR_FORMAT)
    member.name, member.size = "00000000.cls", 1
    label = member.tobuf(tarfile.USTAR_FORMAT) + b"7".ljust(512, b"\0")
    with path.open("wb") as file:
        for i in range(images):
            name = f"{i:08}".encode()
            file.write(_named(jpeg, name) + _named(label[:512], name) + label[512:])
        file.write(bytes(1024))


def _named(header: bytes, name: bytes) -> bytes:
    header = name + header[len(name) : 148] + b" " * 8 + header[156:]
    return header[:148] + f"{sum(header):06o}\0 ".encode() + header[156:]


def measure(what: str, list_it: Callable[[], FolderImages | ShardImages]) -> None:
    seconds = []
    for _ in range(2):
        gc.collect()
        start = time.perf_counter()
        images = list_it()
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{what}: {len(images):,} images in {seconds[0]:.2f} s, {seconds[1]:.2f} s the second time; index "
        f"{images.nbytes / len(images):.1f} bytes an image; {peak:.0f} MiB peak of the process so far"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--at", type=Path, help="where to make the temporary folder")
    arguments = parser.parse_args()
    print(f"before: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB peak")
    with tempfile.TemporaryDirectory(dir=arguments.at) as name:
        make_folder(Path(name) / "folder", arguments.images)
        measure("folder", lambda: FolderImages(Path(name) / "folder"))
        make_shard(Path(name) / "shard.tar", arguments.images)
        measure("tar", lambda: ShardImages([Path(name) / "shard.tar"]))


if __name__ == "__main__":
    main()
