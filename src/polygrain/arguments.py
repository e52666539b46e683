"""Arguments of a command line: parsed by jsonargparse, shown and complained about in words for people."""

import dataclasses
import difflib
import re
from argparse import SUPPRESS, Action, HelpFormatter
from collections.abc import Collection, Sequence
from typing import Any, NoReturn, get_args, get_origin

from jsonargparse import ArgumentParser, DefaultHelpFormatter

ALIASES = {"from": "start_from"}  # `from` is a word of Python's own


class Help(DefaultHelpFormatter):
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
    if words := re.findall(r"'([\w.+-]+)'", type_name):
        return "|".join(words)
    type_name = type_name.removeprefix("Optional[")
    kinds = {
        "bool": "true|false",
        "int": "N",
        "float": "X",
        "str": "TEXT",
        "tuple": "A,B,...",
        "Mapping": "{NAME: VALUE,...}",
    }
    return next((kind for name, kind in kinds.items() if type_name.startswith(name)), type_name)


class Parser(ArgumentParser):
    """Says what is wrong in one line, with the nearest valid name; shows options with hyphens."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(formatter_class=Help, allow_abbrev=False, **arguments)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise ValueError(explain(message, self.options()))

    def parse_args(self, args: Sequence[str] | None = None, *rest: Any, **more: Any) -> Any:  # type: ignore[override]
        """As jsonargparse, and lists may be given as people do: `--k 10,20` is `--k [10,20]`."""
        lists = {name for action in self._actions if is_list(action) for name in action.option_strings}
        return super().parse_args([bracketed(word, lists) for word in args or ()], *rest, **more)

    def options(self) -> list[str]:
        return [shown(name) for action in self._actions for name in action.option_strings if name.startswith("--")]

    def format_help(self, formatter: HelpFormatter | None = None) -> str:
        return re.sub(r"  --print-config.*?(?=\n  --)", "", super().format_help(formatter), flags=re.DOTALL)


def is_list(action: Action) -> bool:
    """Whether the values of an option are several."""
    hint = getattr(action, "_typehint", None)
    return any(get_origin(kind) is tuple for kind in (hint, *get_args(hint)))


def bracketed(argument: str, lists: Collection[str]) -> str:
    """The argument, with brackets about the value of an option that is a list."""
    name, equals, value = argument.partition("=")
    if name not in lists or not equals or value.startswith(("[", "(")) or value in ("null", ""):
        return argument
    return f"{name}=[{value}]"


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
    line = re.sub(r"Group '([\w.]+)' does not accept option '([\w.]+)'", r"Option '\1.\2' is not accepted", line)
    if match := re.search(
        r"unrecognized arguments: --([\w.]+)|(?:Option|Key) ['\"]([\w.-]+)['\"] is not accepted", line
    ):
        wrong = shown(f"--{match[1] or match[2]}")
        near = difflib.get_close_matches(wrong, options, n=1, cutoff=0.6)
        return f"unknown option {wrong}" + (f"; did you mean {near[0]}?" if near else "; see --help")
    if match := re.search(r"unrecognized arguments: (\S+)", line):
        return f"do not know what to do with {match[1]!r}; see --help"
    if match := re.search(r"arguments are required: (.*)", line):
        return f"missing {', '.join(shown('--' + name) for name in match[1].split(', '))}; see --help"
    if match := re.search(r'Parser key "([\w.]+)":(.*)', line):
        return f"{shown('--' + match[1])} {_mismatch(match[2])}"
    return line


def _mismatch(told: str) -> str:
    """What a value is and should be, from the parser's words."""
    value = re.search(r"(?:Given|Got) value: (\S+)", told)
    kinds = re.findall(r"<class '(\w+)'>|typing\.Literal\[([^\]]+)\]", told)
    wanted = " or ".join(dict.fromkeys(a or b.replace("'", "") for a, b in kinds if a != "NoneType"))
    return f"cannot be {value[1]!r}; wanted: {wanted}" if value and wanted else told.strip()


def option(arguments: Sequence[str], name: str) -> str | None:
    return next(iter(options_of(arguments, name)), None)


def options_of(arguments: Sequence[str], name: str) -> list[str]:
    return [argument.partition("=")[2] for argument in arguments if argument.startswith(f"--{name}=")]
