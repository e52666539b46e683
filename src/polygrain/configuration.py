"""Configurations (YAML): plain values by name, read with suspicion since people pass them around."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

LARGEST = 100_000  # bytes; a configuration that a run writes has about 2,000
DEEPEST = 20
MOST = 10_000  # values, those behind an alias counted each time it is used
CLASSES = ("class_path", "init_args", "dict_kwargs", "_target_", "_partial_", "_args_")
ELSEWHERE = ("config", "recipe")
PLAIN = frozenset(
    f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "seq", "map", "merge")
)


class _Loader(yaml.SafeLoader):
    """Plain values alone; a name that occurs twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else None
            if name in seen and name != "<<":
                raise ValueError(f"line {key.start_mark.line + 1}: {name!r} is given twice; leave one")
            seen.add(str(name))
        return super().construct_mapping(node, deep)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The options in a file, by name; nested maps for those of a method.

    Raises:
        ValueError: when it is not YAML of plain values, is larger or deeper than any configuration, names an option
            twice, or names a class to build.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is not a file; name a YAML file with options such as 'epochs: 100'")
    with path.open("rb") as file:
        raw = file.read(LARGEST + 1)
    if len(raw) > LARGEST:
        raise ValueError(f"{path} is larger than {LARGEST:,} bytes; a configuration holds options alone")
    try:
        text = raw.decode()
        _vet(text)
        content = yaml.load(text, Loader=_Loader)  # a safe loader
        if not isinstance(content, dict):
            raise ValueError("it must hold options by name, such as 'epochs: 100'")
        _check_names(content)
    except (yaml.YAMLError, RecursionError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())[:300]}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return content


class _Open(NamedTuple):
    """A list or map that has begun and not ended."""

    anchor: str | None
    before: int  # values counted when it began


def _vet(text: str) -> None:
    """Whether the text stays small when its aliases are followed, and asks for no objects; nothing is built."""
    count, within, sizes = 0, list[_Open](), dict[str, int]()
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        where = f"line {event.start_mark.line + 1}: " if event.start_mark else ""
        if isinstance(event, yaml.NodeEvent):
            count += 1
        if isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent) and event.tag not in (None, "!", *PLAIN):
            raise ValueError(f"{where}{event.tag} asks for an object to be made; only plain values are taken")
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise ValueError(f"{where}*{event.anchor} stands within itself, or for nothing")
            count += sizes[event.anchor]
        elif isinstance(event, yaml.ScalarEvent) and event.anchor:
            sizes[event.anchor] = 1
        elif isinstance(event, yaml.CollectionStartEvent):
            within.append(_Open(event.anchor, count))
        elif isinstance(event, yaml.CollectionEndEvent):
            closed = within.pop()
            if closed.anchor:
                sizes[closed.anchor] = count - closed.before
        if count > MOST or len(within) > DEEPEST:
            raise ValueError(f"{where}more than {MOST:,} values, or more than {DEEPEST} within each other")


def _check_names(content: dict[Any, Any]) -> None:
    for name in ELSEWHERE:
        if name in content:
            raise ValueError(f"{name!r} cannot stand in a configuration; give it on the command line")
    for path, holder in _walk(content, ()):
        name = ".".join(map(str, path))
        if isinstance(holder, dict) and not isinstance(path[-1], str):
            raise ValueError(f"{name} is not a name of an option; names are text")
        if path[-1] in CLASSES:
            raise ValueError(f"{name} names a class or a function; only plain values are taken")


def _walk(holder: Any, path: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every entry by its path, with the map or list that holds it."""
    entries = holder.items() if isinstance(holder, dict) else enumerate(holder) if isinstance(holder, list) else ()
    for key, inner in entries:
        yield (*path, key), holder
        yield from _walk(inner, (*path, key))
