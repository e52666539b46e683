"""Look at what models see."""

from polygrain.arguments import Parser, typed
from polygrain.report.settings import ReportSettings


def report(arguments: list[str]) -> None:
    """Write one HTML page to look at what models see: polygrain report MODEL [MODEL ...] --data SOURCE."""
    models: list[str] = []
    rest = list(arguments)
    while rest and not rest[0].startswith("-"):
        models.append(rest.pop(0))
    parser = Parser(prog="polygrain report", usage="polygrain report MODEL [MODEL ...] --data SOURCE [options]")
    parser.add_argument("--data", type=str, required=True, help="Images: folder, shards, or scenes:COUNT.")
    parser.add_argument("--out", type=str, default="report.html", help="File to write.")
    parser.add_class_arguments(ReportSettings)
    given = parser.parse_args(typed(rest), defaults=False).as_dict()
    if not models:
        raise ValueError("name a model: a run folder, a backbone file, timm:NAME, random:NAME, or pixels")
    data, out = given.pop("data"), given.pop("out", "report.html")
    settings = ReportSettings(**given)

    from polygrain.report.building import write_model_report

    written = write_model_report(models, data, out, settings)
    seconds = sum(written.seconds.values())
    print(f"{written.path} ({written.bytes / 1e6:.1f} MB, {seconds:.0f} s)")
