"""Write vectors for others."""

from polygrain.arguments import Parser, typed
from polygrain.evaluate.settings.embedding import EmbedSettings


def embed(arguments: list[str]) -> None:
    """Write the vectors of images, regions or groups to a file: polygrain embed DATA --model MODEL --out x.parquet."""
    parser = Parser(
        prog="polygrain embed",
        usage="polygrain embed DATA --model MODEL --out FILE [--level pooled|region|group] [options]",
    )
    parser.add_argument("--data", type=str, required=True, help="Images: folder, shards, or scenes:COUNT.")
    parser.add_argument(
        "--model", type=str, required=True, help="A run folder, a backbone file, timm:NAME, random:NAME, or pixels."
    )
    parser.add_argument(
        "--out", type=str, required=True, help="File to write: .parquet, or .npy with a .csv that names its rows."
    )
    parser.add_class_arguments(EmbedSettings)
    given = parser.parse_args(typed(arguments, ["data"]), defaults=False).as_dict()
    model, data, out = (given.pop(name) for name in ("model", "data", "out"))
    settings = EmbedSettings(**given)

    from polygrain.evaluate.embed import embed as write

    written = write(model, data, out, settings)
    print(f"{written.rows:,} vectors: {', '.join(map(str, written.files))}")
    for note in written.notes:
        print(f"note: {note}")
