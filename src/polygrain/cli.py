"""The command line. Heavy modules are imported by the verb that needs them, so that `--help` answers at once."""

import dataclasses
import difflib
import re
import sys
from argparse import SUPPRESS, Action
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import ActionConfigFile, ArgumentParser, DefaultHelpFormatter

from polygrain.evaluate.settings import KnnSettings, LinearSettings
from polygrain.train.settings import PretrainSettings

RECIPES = Path(__file__).parent / "recipes"
ALIASES = {"from": "start_from"}  # `from` is a word of Python's own
PROTOCOLS = {"knn": KnnSettings, "linear": LinearSettings}
OUR_ERRORS = (ValueError, OSError, FloatingPointError)


class Help(DefaultHelpFormatter):  # type: ignore[misc]  # jsonargparse comes without types
    """Options as people type them, with what kind of value they take."""

    def _format_action_invocation(self, action: Action) -> str:
        if not action.option_strings:
            return str(super()._format_action_invocation(action))
        names = ", ".join(shown(name) for name in action.option_strings)
        kind = kind_of(self._get_type_str(action))
        return f"{names} {kind}" if kind else names

    def _get_help_string(self, action: Action) -> str:
        if action.required:
            return f"{action.help or ''} (required)"
        told = action.default in (None, False, (), SUPPRESS) or action.dest == "help"
        return (action.help or "") + ("" if told else " (default: %(default)s)")


def kind_of(type_name: str | None) -> str:
    """How help shows a type: nothing for a flag, the words of a choice, else N, X, TEXT and the like."""
    if type_name is None or type_name == "bool":
        return ""
    if words := re.findall(r"'([\w.-]+)'", type_name):
        return "|".join(words)
    kinds = {"int": "N", "float": "X", "str": "TEXT", "tuple": "[A,B,...]", "Mapping": "{NAME: VALUE,...}"}
    return next((kind for name, kind in kinds.items() if type_name.startswith(name)), type_name)


class Parser(ArgumentParser):  # type: ignore[misc]
    """Says what is wrong in one line, with the nearest valid name; shows options with hyphens."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(formatter_class=Help, allow_abbrev=False, **arguments)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise ValueError(explain(message, self.options()))

    def options(self) -> list[str]:
        return [shown(name) for action in self._actions for name in action.option_strings if name.startswith("--")]

    def format_help(self) -> str:
        return re.sub(r"  --print-config.*?(?=\n  --)", "", str(super().format_help()), flags=re.DOTALL)


def shown(option: str) -> str:
    """An option as people type it: `--start_from` is `--from`, `--batch_size` is `--batch-size`."""
    option = {f"--{name}": f"--{alias}" for alias, name in ALIASES.items()}.get(option, option)
    return option.replace("_", "-")


def typed(arguments: Sequence[str], positional: Sequence[str] = (), flags: Sequence[str] = ()) -> list[str]:
    """Arguments as the parser wants them: underscores in names, positions as named options, flags with a value.

    Args:
        positional: names of the options that may be given without a name, in this order.
        flags: names of options that stand alone; any option with nothing behind it is taken as one, too.
    """
    result: list[str] = []
    words = list(arguments)
    places = list(positional)
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            result.append(f"--{places.pop(0)}={word}" if places and not word.startswith("-") else word)
            continue
        name, equals, value = word.partition("=")
        name = name[2:].replace("-", "_")
        name = ALIASES.get(name, name)
        if name == "help":
            result.append("--help")
        elif equals:
            result.append(f"--{name}={value}")
        elif not words or words[0].startswith("--") or (name in flags and words[0] not in ("true", "false")):
            result.append(f"--{name}=true")
        else:
            result.append(f"--{name}={words.pop(0)}")
    return result


def flags_of(settings: type) -> list[str]:
    return [field.name for field in dataclasses.fields(settings) if field.type is bool]


def explain(message: str, options: Sequence[str]) -> str:
    """The parser's message as one line, with the nearest option where one is unknown."""
    line = re.sub(r"\s*\n\s*(- )?", " ", message).strip()
    if match := re.search(
        r"Unrecognized arguments: (--[\w.-]+)|(?:Option|Key) ['\"]([\w.-]+)['\"] is not accepted", line
    ):
        wrong = shown(match[1] or f"--{match[2]}")
        near = difflib.get_close_matches(wrong, options, n=1, cutoff=0.5)
        return f"unknown option {wrong}" + (f"; did you mean {near[0]}?" if near else "; see --help")
    if match := re.search(r'Parser key "([\w.]+)":(.*)', line):
        value = re.search(r"Given value: (.*)$", match[2])
        expected = re.findall(r"Expected (?:<class '(\w+)'>|(.+?))(?= Expected|\. |$| Given)", match[2])
        kinds = " or ".join(dict.fromkeys(a or b for a, b in expected if (a or b) != "NoneType"))
        if value and kinds:
            return f"{shown('--' + match[1])} cannot be {value[1]!r}: {kinds} expected"
        return f"{shown('--' + match[1])}: {match[2].strip()}"
    return line


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb; returns the exit code: 0, or 2 after a mistake that a person can mend, told in one line."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    if arguments[0] == "--version":
        print(version("polygrain"))
        return 0
    verb = arguments[0]
    try:
        if verb not in VERBS:
            near = difflib.get_close_matches(verb, VERBS, n=1)
            raise ValueError(f"unknown command {verb!r}" + (f"; did you mean {near[0]!r}?" if near else "; see --help"))
        VERBS[verb](arguments[1:])
    except OUR_ERRORS as error:
        print(f"polygrain{' ' + verb if verb in VERBS else ''}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("polygrain: interrupted", file=sys.stderr)
        return 130
    return 0


def overview() -> str:
    lines = [f"  {name:<10} {(verb.__doc__ or '').splitlines()[0]}" for name, verb in VERBS.items()]
    return "\n".join(
        [
            "polygrain: self-supervised pretraining of vision backbones at every granularity",
            "",
            "usage: polygrain VERB ... (polygrain VERB --help for its options)",
            "",
            *lines,
        ]
    )


def pretrain(arguments: list[str]) -> None:
    """Train a backbone on a folder of unlabelled images."""
    arguments = typed(arguments, ["data"], flags_of(PretrainSettings))
    if not method_named(arguments) and {"-h", "--help"} & {*arguments}:
        pretrain_parser(None).print_help()
        return
    recipe = read_recipe(arguments)
    name = method_named(arguments) or recipe.get("method", PretrainSettings.method)
    parser = pretrain_parser(name)
    given = parser.parse_args(arguments, defaults=False).as_dict()
    given.pop("config", None)
    if given.pop("recipe", None):
        parser.parse_object({"data": "", "out": "", **recipe}, defaults=False)  # refuses what it does not know
        given = merge({"scale": "paper", **recipe}, given)

    from polygrain.methods.adding import LocalSettings
    from polygrain.train.setup import pretrain as run

    method = given.pop(name, {})
    local = LocalSettings(**given.pop("local", {}))
    result = run(PretrainSettings(**given), method, local)
    probe = "  ".join(f"{key} {value:.2%}" for key, value in result.record.items() if key.startswith("probe/"))
    print(f"Trained backbone: {result.out / 'backbone.safetensors'}" + (f"  ({probe})" if probe else ""))


def pretrain_parser(method: str | None) -> Parser:
    """Options of a run, and those of the method where one is named."""
    more = (
        "Options of a method and of the local objective: polygrain pretrain --method NAME --help."
        if method is None
        else f"Options of {method} and of the local objective stand at the end."
    )
    parser = Parser(
        prog="polygrain pretrain",
        usage="polygrain pretrain DATA --out RUN [options]",
        description=f"Train a backbone on unlabelled images. {more}",
    )
    parser.add_argument("--config", action=ActionConfigFile, help="YAML file with any of these options.")
    parser.add_argument("--recipe", type=str, help="A published run, such as mugs-vits16-100ep; implies --scale paper.")
    parser.add_class_arguments(PretrainSettings)
    if method is not None:
        from polygrain.methods import METHODS
        from polygrain.methods.adding import LocalSettings

        if method not in METHODS:
            near = difflib.get_close_matches(method, METHODS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(METHODS)}"
            raise ValueError(f"unknown method {method!r}; {hint}")
        parser.add_class_arguments(METHODS[method], method)
        parser.add_class_arguments(LocalSettings, "local")
    return parser


def method_named(arguments: Sequence[str]) -> str | None:
    """The method on the command line or in a configuration file, before the rest is parsed."""
    return option(arguments, "method") or next(
        (str(c["method"]) for c in map(read_yaml, options_of(arguments, "config")) if "method" in c), None
    )


def option(arguments: Sequence[str], name: str) -> str | None:
    return next(iter(options_of(arguments, name)), None)


def options_of(arguments: Sequence[str], name: str) -> list[str]:
    return [argument.partition("=")[2] for argument in arguments if argument.startswith(f"--{name}=")]


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


def read_yaml(path: str | Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(Path(path).read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold options by name, such as 'epochs: 100'")
    return content


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Nested options; those of `above` win."""
    merged = dict(below)
    for key, value in above.items():
        nested = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if nested else value
    return merged


VERBS: dict[str, Callable[[list[str]], None]] = {
    "pretrain": pretrain,
}


if __name__ == "__main__":
    sys.exit(main())
