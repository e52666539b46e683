"""Prove that runs are exact."""

from polygrain.arguments import Parser, typed
from polygrain.configuration import read_yaml
from polygrain.train.stops import Stopped


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
