"""Compare backbones."""

from pathlib import Path

from polygrain.arguments import Parser, flags_of, typed
from polygrain.commands.choosing import check_folder_of
from polygrain.evaluate.settings.comparing import CompareSettings


def compare(arguments: list[str]) -> None:
    """Several models on the same labelled images, with paired intervals: polygrain compare A B ... --data IMAGES."""
    parser = Parser(
        prog="polygrain compare",
        usage="polygrain compare MODEL MODEL ... --data IMAGES [--val IMAGES] [--suite SUITE] [options]",
        description=(
            "Runs the same protocols on several models (run folders, backbone files, timm:NAME, random:NAME, pixels) "
            "and tells how each differs from the first, with paired 95 % intervals."
        ),
    )
    parser.add_argument("--data", type=str, required=True, help="Images with labels or with masks: folder or shards.")
    parser.add_argument("--val", type=str, help="Images to test on. (default: a share of --data)")
    parser.add_argument("--split", type=str, help="For segmentation: lists of names, as splits.json:NAME.")
    parser.add_argument("--json", type=str, help="Also write all results with their protocols to this file.")
    parser.add_class_arguments(CompareSettings)
    words = typed(arguments, (), flags_of(CompareSettings))
    models = [word for word in words if not word.startswith("-")]  # wherever they stand
    given = parser.parse_args([word for word in words if word.startswith("-")], defaults=False).as_dict()
    data, val, split, out = (given.pop(name, None) for name in ("data", "val", "split", "json"))
    check_folder_of(out)
    settings = CompareSettings(**given)

    from polygrain.distributed import joined, rank
    from polygrain.evaluate.comparing import compare as run

    with joined():
        found = run(models, data, val, split, settings)
        if rank() > 0:
            return
        print(found.table())
        if out is not None:
            Path(out).write_text(found.json() + "\n")
