"""Train a backbone."""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from polygrain.arguments import Parser, flags_of, option, options_of, typed
from polygrain.commands.choosing import check_choice
from polygrain.configuration import read_yaml
from polygrain.train.settings import PretrainSettings

RECIPES = Path(__file__).parents[1] / "recipes"


def pretrain(arguments: list[str]) -> None:
    """Train a backbone on a folder of unlabelled images."""
    arguments = typed(arguments, ["data"], flags_of(PretrainSettings))
    arguments = [*configuration_of_run(arguments), *arguments]
    configurations = [read_yaml(path) for path in options_of(arguments, "config")]
    if not method_named(arguments, configurations) and {"-h", "--help"} & {*arguments}:
        pretrain_parser(None).print_help()
        return
    recipe = read_recipe(arguments)
    name = method_named(arguments, configurations) or recipe.get("method", PretrainSettings.method)
    parser = pretrain_parser(name)

    from polygrain.distributed import rank
    from polygrain.methods import METHODS
    from polygrain.methods.adding import ADDABLE
    from polygrain.train.setup import pretrain as run

    arguments = listed(arguments, "without")
    for group in (name, *ADDABLE):
        if option(arguments, group) or any(not isinstance(c.get(group, {}), dict) for c in configurations):
            raise ValueError(f"{group} holds options; give them as --{group}.NAME, or by name in a file for --config")
    given = parser.parse_args(arguments, defaults=False).as_dict()
    given.pop("config", None)
    if given.pop("recipe", None):
        parser.parse_object({"data": "", "out": "", **recipe}, defaults=False)  # refuses what it does not know
        given = merge({"scale": "paper", **recipe}, given)

    method = given.pop(name, {})
    METHODS[name](**method)  # refuses what is out of range before any data is touched
    named = words(options_of(arguments, "add") or [given.pop("add", "")])
    given.pop("add", None)
    for unknown in {*named} - {*ADDABLE}:
        near = difflib.get_close_matches(unknown, ADDABLE, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"what can be added is {', '.join(ADDABLE)}"
        raise ValueError(f"cannot add {unknown!r}; {hint}")
    added = {objective: given.pop(objective, {}) for objective in ADDABLE if objective in named or objective in given}
    for objective, values in added.items():
        ADDABLE[objective](**values)  # likewise
    result = run(PretrainSettings(**given), method, added)
    if rank() > 0:
        return
    probe = "  ".join(f"{key} {value:.2%}" for key, value in result.record.items() if key.startswith("probe/"))
    print(f"Trained backbone: {result.out / 'backbone.safetensors'}" + (f"  ({probe})" if probe else ""))


def words(values: Sequence[str]) -> list[str]:
    """What stands between commas, in all of the values."""
    return [word.strip() for value in values for word in value.split(",") if word.strip()]


def listed(arguments: Sequence[str], name: str) -> list[str]:
    """The arguments, with an option that may be given several times, or with commas, as one list."""
    found = options_of(arguments, name)
    if not found or found[0].startswith("["):
        return [*arguments]
    rest = [argument for argument in arguments if not argument.startswith(f"--{name}=")]
    return [*rest, f"--{name}=[{', '.join(words(found))}]"]


def configuration_of_run(arguments: Sequence[str]) -> list[str]:
    """With --resume, what the run was begun with; options that are named again win."""
    out = option(arguments, "out")
    if out is None or option(arguments, "resume") != "true" or options_of(arguments, "config"):
        return []
    resolved = Path(out) / "config.yaml"
    return [f"--config={resolved}"] if resolved.is_file() else []


def pretrain_parser(method: str | None) -> Parser:
    """Options of a run, and those of the method where one is named."""
    more = (
        "Options of a method and of objectives to add: polygrain pretrain --method NAME --help."
        if method is None
        else f"Options of {method} and of objectives to add stand at the end; naming one of these adds its objective."
    )
    parser = Parser(
        prog="polygrain pretrain",
        usage="polygrain pretrain DATA --out RUN [options]",
        description=f"Train a backbone on unlabelled images. {more}",
    )
    parser.add_argument("--config", action="config", help="YAML file with any of these options.")
    parser.add_argument("--recipe", type=str, help="A published run, such as mugs-vits16-100ep; implies --scale paper.")
    parser.add_argument("--add", type=str, help="Objectives to add to the method: local, group ..., with commas.")
    parser.add_class_arguments(PretrainSettings)
    if method is not None:
        from polygrain.methods import METHODS
        from polygrain.methods.adding import ADDABLE

        check_choice("method", method, METHODS)
        parser.add_class_arguments(METHODS[method], method)
        for name, settings in ADDABLE.items():
            parser.add_class_arguments(settings, name)
    return parser


def method_named(arguments: Sequence[str], configurations: Sequence[Mapping[str, Any]]) -> str | None:
    """The method on the command line or in a configuration, before the rest is parsed."""
    return option(arguments, "method") or next((str(c["method"]) for c in configurations if "method" in c), None)


def read_recipe(arguments: Sequence[str]) -> dict[str, Any]:
    name = option(arguments, "recipe")
    if name is None:
        return {}
    known = sorted(path.stem for path in RECIPES.glob("*.yaml"))
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(known)}"
        raise ValueError(f"unknown recipe {name!r}; {hint}")
    return read_yaml(RECIPES / f"{name}.yaml")


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Nested options; those of `above` win."""
    merged = dict(below)
    for key, value in above.items():
        nested = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if nested else value
    return merged
