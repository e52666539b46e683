"""Measure backbones."""

from pathlib import Path

from polygrain.arguments import Parser, flags_of, options_of, typed
from polygrain.commands.choosing import check_choice, check_folder_of
from polygrain.configuration import read_yaml
from polygrain.evaluate.protocols import PROTOCOLS


def evaluate(arguments: list[str]) -> None:
    """Measure what a backbone learned: polygrain evaluate PROTOCOL MODEL --data TRAIN --val VAL."""
    if not arguments or arguments[0].startswith("-"):
        if not {"-h", "--help"} & {*arguments}:
            raise ValueError(f"name a protocol: {', '.join(PROTOCOLS)}")
        told = {name: (protocol.settings.__doc__ or "").splitlines()[0] for name, protocol in PROTOCOLS.items()}
        width = max(map(len, told))
        lines = [f"  {name.replace('_', '-'):<{width}}  {line}" for name, line in told.items()]
        usage = "usage: polygrain evaluate PROTOCOL MODEL --data TRAIN --val VAL [options]"
        print("\n".join([usage, "", "protocols (polygrain evaluate PROTOCOL --help):", *lines]))
        return
    name = arguments[0].replace("-", "_")
    check_choice("protocol", name, PROTOCOLS)
    protocol, shown = PROTOCOLS[name], name.replace("_", "-")
    wanted = {option.rstrip("?"): (not option.endswith("?"), about) for option, about in protocol.data.items()}
    usage = " ".join(
        f"--{option.replace('_', '-')} {option.upper()}" for option, (needed, _) in wanted.items() if needed
    )
    parser = Parser(prog=f"polygrain evaluate {shown}", usage=f"polygrain evaluate {shown} MODEL {usage} [options]")
    parser.add_argument(
        "--model", type=str, required=True, help="A run folder, a backbone file, timm:NAME, random:NAME, or pixels."
    )
    for option, (needed, about) in wanted.items():
        parser.add_argument(f"--{option}", type=str, required=needed, help=about)
    parser.add_argument("--config", action="config", help="YAML file with any of these options.")
    parser.add_argument("--json", type=str, help="Also write the result with its protocol to this file.")
    parser.add_class_arguments(protocol.settings)
    words = typed(arguments[1:], ["model"], flags_of(protocol.settings))
    for path in options_of(words, "config"):
        read_yaml(path)  # refuses what is no plain configuration
    given = parser.parse_args(words, defaults=False).as_dict()
    given.pop("config", None)
    model, out = given.pop("model"), given.pop("json", None)
    check_folder_of(out)
    data = {option: given.pop(option, None) for option in wanted}
    settings = protocol.settings(**given)  # refuses what is out of range before anything heavy is loaded

    from polygrain.distributed import joined, rank

    with joined():
        result = protocol.function()(model, **data, settings=settings)
        if rank() > 0:
            return
        print(result.table())
        if out is not None:
            Path(out).write_text(result.json() + "\n")
