"""The command line. Heavy modules are imported by the verb that needs them, so that `--help` answers at once."""

import dataclasses
import difflib
import os
import stat
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from jsonargparse import set_parsing_settings

from polygrain.arguments import Parser, flags_of, option, options_of, typed
from polygrain.configuration import read_yaml
from polygrain.evaluate.settings import KnnSettings, LinearSettings
from polygrain.train.settings import PretrainSettings
from polygrain.train.stops import Lost, Stopped

RECIPES = Path(__file__).parent / "recipes"
PROTOCOLS = {"knn": KnnSettings, "linear": LinearSettings}
OUR_ERRORS = (ValueError, OSError)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb; returns the exit code.

    0; 2 after a mistake that a person can mend, told in one line; 3 where features died or a loss is no number, 4 where
    what must be kept could not be written, 5 where a process of the run was lost, 130 and 143 after a signal.
    """
    # before torch is loaded: threads that spin while another process has their core made runs many times slower
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    if arguments[0] == "--version":
        print(version("polygrain"))
        return 0
    verb = arguments[0]
    set_parsing_settings(import_path_denylist=["*"])  # else a value such as {class_path: module.name} imports it
    try:
        if verb not in VERBS:
            near = difflib.get_close_matches(verb, VERBS, n=1)
            raise ValueError(f"unknown command {verb!r}" + (f"; did you mean {near[0]!r}?" if near else "; see --help"))
        VERBS[verb](arguments[1:])
    except OUR_ERRORS as error:
        print(f"polygrain{' ' + verb if verb in VERBS else ''}: error: {told(error)}", file=sys.stderr)
        return 2
    except Stopped as stopped:
        from polygrain.distributed import rank

        if rank() > 0 and not isinstance(stopped, Lost):
            return 0  # all ranks stop for the same reason, and rank 0 speaks for them
        print(f"polygrain {verb}: {stopped}", file=sys.stderr)
        return stopped.exit_code
    except KeyboardInterrupt:
        print("polygrain: interrupted", file=sys.stderr)
        return 130
    return 0


def told(error: Exception) -> str:
    """An error as a person can use it: of a file, its name, and whose it is where that is the trouble."""
    if not isinstance(error, OSError) or not error.filename:
        return str(error)
    owner = ""
    if isinstance(error, PermissionError):
        with suppress(OSError, KeyError):
            status = Path(error.filename).stat()
            owner = f"; it belongs to {Path(error.filename).owner()}, with mode {stat.S_IMODE(status.st_mode):04o}"
    return f"{error.strerror}: {error.filename}{owner}"


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

        check_method(method)
        parser.add_class_arguments(METHODS[method], method)
        for name, settings in ADDABLE.items():
            parser.add_class_arguments(settings, name)
    return parser


def check_method(name: str) -> None:
    from polygrain.methods import METHODS

    if name not in METHODS:
        near = difflib.get_close_matches(name, METHODS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(METHODS)}"
        raise ValueError(f"unknown method {name!r}; {hint}")


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


def evaluate(arguments: list[str]) -> None:
    """Measure what a backbone learned: polygrain evaluate knn|linear MODEL --data TRAIN --val VAL."""
    usage = "polygrain evaluate PROTOCOL MODEL --data TRAIN --val VAL [options]"
    if not arguments or arguments[0].startswith("-"):
        if not {"-h", "--help"} & {*arguments}:
            raise ValueError(f"name a protocol: {', '.join(PROTOCOLS)}")
        about = {name: (settings.__doc__ or "").splitlines()[0] for name, settings in PROTOCOLS.items()}
        lines = [f"  {name:<8} {line}" for name, line in about.items()]
        print("\n".join([f"usage: {usage}", "", "protocols (polygrain evaluate PROTOCOL --help):", *lines]))
        return
    protocol = arguments[0]
    if protocol not in PROTOCOLS:
        near = difflib.get_close_matches(protocol, PROTOCOLS, n=1)
        raise ValueError(
            f"unknown protocol {protocol!r}; " + (f"did you mean {near[0]!r}?" if near else f"{', '.join(PROTOCOLS)}")
        )
    settings = PROTOCOLS[protocol]
    parser = Parser(prog=f"polygrain evaluate {protocol}", usage=usage.replace("PROTOCOL", protocol))
    parser.add_argument(
        "--model", type=str, required=True, help="A run folder, a backbone file, timm:NAME, random:NAME, or pixels."
    )
    parser.add_argument("--data", type=str, required=True, help="Labelled training images: folder or shards.")
    parser.add_argument("--val", type=str, required=True, help="Labelled images to classify: folder or shards.")
    parser.add_argument("--json", type=str, help="Also write the result with its protocol to this file.")
    parser.add_class_arguments(settings)
    given = parser.parse_args(typed(arguments[1:], ["model"], flags_of(settings)), defaults=False).as_dict()
    model, data, val, out = (given.pop(name, None) for name in ("model", "data", "val", "json"))

    from polygrain.evaluate.knn import evaluate_knn
    from polygrain.evaluate.linear import evaluate_linear

    run: Any = {"knn": evaluate_knn, "linear": evaluate_linear}[protocol]
    result = run(model, data, val, settings(**given))
    print(result.table())
    if out is not None:
        Path(out).write_text(result.json() + "\n")


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


def export(arguments: list[str]) -> None:
    """Write a trained backbone as a file that timm or plain torch loads."""
    parser = Parser(prog="polygrain export", usage="polygrain export RUN --to timm|torch|safetensors --out FILE")
    parser.add_argument("--run", type=str, required=True, help="A run folder or a backbone file.")
    parser.add_argument("--to", type=Literal["timm", "torch", "safetensors"], default="timm", help="Kind of file.")
    parser.add_argument("--out", type=str, required=True, help="File to write.")
    given = parser.parse_args(typed(arguments, ["run"]))

    from polygrain.weights.exporting import export as write

    print(write(given.run, to=given.to, out=given.out))


def methods(arguments: list[str]) -> None:
    """List the methods, or the hyperparameters of one: polygrain methods [NAME]."""
    parser = Parser(prog="polygrain methods", usage="polygrain methods [NAME]")
    parser.add_argument("--name", type=str, help="A method, to see its hyperparameters with the paper's values.")
    name = parser.parse_args(typed(arguments, ["name"])).name

    from polygrain.methods import METHODS

    if name is not None:
        check_method(name)
        for field in dataclasses.fields(METHODS[name]):  # type: ignore[arg-type]  # a protocol of dataclasses
            print(f"  {name}.{field.name:<28} {getattr(METHODS[name](), field.name)}")
        return
    from polygrain.methods.overview import overview, table

    print(table(overview()))
    print("Sizes at the papers' settings, encoders not counted; `networks` is how many of these there are.")
    print("Objectives are added with --add local, left out with --without NAME; `polygrain methods NAME` shows values.")


def verify(arguments: list[str]) -> None:
    """Prove on this machine that runs resume exactly: polygrain verify resume|ranks CONFIG."""
    usage = "polygrain verify resume|ranks CONFIG [--steps N]"
    if not arguments or arguments[0] not in ("resume", "ranks"):
        if {"-h", "--help"} & {*arguments}:
            print(f"usage: {usage}\n")
            print("  resume   N steps at once equal N with SIGKILL in the middle and --resume, in all bits")
            print("  ranks    one device = two devices with the same batch, within rounding")
            return
        raise ValueError(f"say what to verify: {usage}")
    parser = Parser(prog=f"polygrain verify {arguments[0]}", usage=usage)
    parser.add_argument("--config", type=str, required=True, help="The configuration of a run, as its config.yaml.")
    parser.add_argument("--steps", type=int, default=20, help="Length of the runs that are compared.")
    given = parser.parse_args(typed(arguments[1:], ["config"]))
    if given.steps < 4:
        raise ValueError(f"steps is {given.steps}; it must be 4 or more")
    read_yaml(given.config)  # refuses what is no configuration

    from polygrain.verify import verify_ranks, verify_resume

    verdict = {"resume": verify_resume, "ranks": verify_ranks}[arguments[0]](given.config, steps=given.steps)
    print("\n".join([*verdict.lines, "verified" if verdict.passed else "NOT the same"]))
    if not verdict.passed:
        raise Stopped("the runs differ, as told above")


def demo(arguments: list[str]) -> None:
    """Render pictures, train on them without labels, measure, and write a report: a few minutes."""
    parser = Parser(prog="polygrain demo", usage="polygrain demo [--out FOLDER] [--seed N]")
    parser.add_argument("--out", type=str, default="polygrain-demo", help="Folder to write to; an older demo goes.")
    parser.add_argument("--seed", type=int, default=0, help="Of pictures, weights and training.")
    given = parser.parse_args(typed(arguments))

    from polygrain.demo import run_demo

    run_demo(Path(given.out), seed=given.seed)


VERBS: dict[str, Callable[[list[str]], None]] = {
    "demo": demo,
    "pretrain": pretrain,
    "evaluate": evaluate,
    "inspect": inspect,
    "export": export,
    "methods": methods,
    "verify": verify,
}


if __name__ == "__main__":
    sys.exit(main())
