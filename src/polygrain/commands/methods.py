"""Tell what can be trained."""

import dataclasses

from polygrain.arguments import Parser, typed
from polygrain.commands.choosing import check_choice


def methods(arguments: list[str]) -> None:
    """List the methods, or the hyperparameters of one: polygrain methods [NAME]."""
    parser = Parser(prog="polygrain methods", usage="polygrain methods [NAME]")
    parser.add_argument("--name", type=str, help="A method, to see its hyperparameters with the paper's values.")
    name = parser.parse_args(typed(arguments, ["name"])).name

    from polygrain.methods import METHODS

    if name is not None:
        check_choice("method", name, METHODS)
        for field in dataclasses.fields(METHODS[name]):  # type: ignore[arg-type]  # a protocol of dataclasses
            print(f"  {name}.{field.name:<28} {getattr(METHODS[name](), field.name)}")
        return
    from polygrain.methods.overview import overview, table

    print(table(overview()))
    print("Sizes at the papers' settings, encoders not counted; `networks` is how many of these there are.")
    print("Objectives are added with --add local, left out with --without NAME; `polygrain methods NAME` shows values.")
