"""Write backbones for others."""

from typing import Literal

from polygrain.arguments import Parser, typed


def export(arguments: list[str]) -> None:
    """Write a trained backbone as a file that timm or plain torch loads."""
    parser = Parser(prog="polygrain export", usage="polygrain export RUN --to timm|torch|safetensors --out FILE")
    parser.add_argument("--run", type=str, required=True, help="A run folder or a backbone file.")
    parser.add_argument("--to", type=Literal["timm", "torch", "safetensors"], default="timm", help="Kind of file.")
    parser.add_argument("--out", type=str, required=True, help="File to write.")
    given = parser.parse_args(typed(arguments, ["run"]))

    from polygrain.weights.exporting import export as write

    print(write(given.run, to=given.to, out=given.out))
