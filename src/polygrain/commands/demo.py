"""The demonstration."""

from pathlib import Path

from polygrain.arguments import Parser, typed


def demo(arguments: list[str]) -> None:
    """Render pictures, train on them without labels, measure, and write a report: a few minutes."""
    parser = Parser(prog="polygrain demo", usage="polygrain demo [--out FOLDER] [--seed N]")
    parser.add_argument("--out", type=str, default="polygrain-demo", help="Folder to write to; an older demo goes.")
    parser.add_argument("--seed", type=int, default=0, help="Of pictures, weights and training.")
    given = parser.parse_args(typed(arguments))

    from polygrain.demo import run_demo

    run_demo(Path(given.out), seed=given.seed)
