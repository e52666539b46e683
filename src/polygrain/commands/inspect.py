"""Look at images before they are used."""

import os
from pathlib import Path

from polygrain.arguments import Parser, typed


def inspect(arguments: list[str]) -> None:
    """Look at every image: what cannot be used, is odd, or is there twice."""
    parser = Parser(
        prog="polygrain inspect", usage="polygrain inspect DATA [--json FILE] [--quarantine LIST] [options]"
    )
    parser.add_argument("--data", type=str, required=True, help="Images: folder or shards.")
    parser.add_argument("--json", type=str, help="Write every finding with every name to this file.")
    parser.add_argument("--quarantine", type=str, help="Write the names of images to leave out, with reasons, here.")
    parser.add_argument("--workers", type=int, help="Processes. (default: one per core)")
    parser.add_argument("--sample", type=int, help="Look at so many images only, drawn at random; finds no duplicates.")
    parser.add_argument("--seed", type=int, default=0, help="Of the sample.")
    parser.add_argument("--channels", type=int, default=3, help="As they will be trained on: 3 is RGB.")
    given = parser.parse_args(typed(arguments, ["data"]))

    from polygrain.data.inspection import inspect_images
    from polygrain.data.quarantine import write_list
    from polygrain.data.sources import open_images

    workers = (os.cpu_count() or 1) if given.workers is None else given.workers
    images = open_images(given.data, given.channels)
    found = inspect_images(images, sample=given.sample, seed=given.seed, workers=workers)
    print(found.table())
    if given.json is not None:
        Path(given.json).write_text(found.json() + "\n")
    if given.quarantine is not None:
        count = write_list(Path(given.quarantine), found.quarantine())
        print(f"\n{count:,} names to leave out: {given.quarantine}")
