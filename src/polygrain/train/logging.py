"""The log of a run: JSON lines as the truth, a progress bar for people, other loggers on request."""

import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TextIO

from tqdm import tqdm

Record = Mapping[str, float | int | str]


class Sink(Protocol):
    """Where records go besides the JSON lines."""

    def log(self, record: Record, step: int) -> None: ...


class TensorBoard:
    """Scalars for TensorBoard (extra `tensorboard`)."""

    def __init__(self, run: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ValueError("--loggers tensorboard needs its package: pip install 'polygrain[tensorboard]'") from error
        self._writer = SummaryWriter(str(run / "tensorboard"))

    def log(self, record: Record, step: int) -> None:
        for name, value in _numbers(record).items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()


class WandB:
    """Weights & Biases (extra `wandb`)."""

    def __init__(self, run: Path) -> None:
        try:
            import wandb
        except ImportError as error:
            raise ValueError("--loggers wandb needs its package: pip install 'polygrain[wandb]'") from error
        self._run = wandb.init(project="polygrain", name=run.name, dir=str(run))

    def log(self, record: Record, step: int) -> None:
        self._run.log(_numbers(record), step=step)


class MLflow:
    """MLflow tracking (extra `mlflow`)."""

    def __init__(self, run: Path) -> None:
        try:
            import mlflow
        except ImportError as error:
            raise ValueError("--loggers mlflow needs its package: pip install 'polygrain[mlflow]'") from error
        mlflow.set_experiment("polygrain")
        mlflow.start_run(run_name=run.name)
        self._mlflow = mlflow

    def log(self, record: Record, step: int) -> None:
        self._mlflow.log_metrics(_numbers(record), step=step)


SINKS: Mapping[str, type[TensorBoard] | type[WandB] | type[MLflow]] = {
    "tensorboard": TensorBoard,
    "wandb": WandB,
    "mlflow": MLflow,
}


def _numbers(record: Record) -> dict[str, float]:
    return {name: float(value) for name, value in record.items() if not isinstance(value, str)}


class Log:
    """Writes records to RUN/log.jsonl and to the sinks, and shows how the run goes.

    On a terminal that is a bar; elsewhere a line now and then, at most about twenty in a run. A rank other than 0
    gets a log that does nothing.
    """

    def __init__(self, run: Path, steps: int, start: int, loggers: Sequence[str], active: bool = True) -> None:
        self._active = active
        if not active:
            return
        self._file: TextIO = (run / "log.jsonl").open("a")
        self._sinks: list[Sink] = [SINKS[name](run) for name in loggers]
        self._terminal = sys.stderr.isatty()
        self._bar: Any = tqdm(total=steps, initial=start, unit="step", disable=not self._terminal, dynamic_ncols=True)
        self._steps, self._shown = steps, start

    def write(self, record: Record, step: int) -> None:
        if not self._active:
            return
        self._file.write(json.dumps({"step": step, **{k: _plain(v) for k, v in record.items()}}) + "\n")
        self._file.flush()
        for sink in self._sinks:
            sink.log(record, step)

    def show(self, line: str, step: int) -> None:
        """Moves the bar to `step`, with a line of figures."""
        if not self._active:
            return
        if self._terminal:
            self._bar.set_postfix_str(line, refresh=False)
            self._bar.update(step - self._bar.n)
        elif step - self._shown >= self._steps / 20 or step == self._steps:
            self._shown = step
            print(f"step {step}/{self._steps}  {line}", file=sys.stderr, flush=True)

    def say(self, line: str) -> None:
        if self._active:
            tqdm.write(line, file=sys.stderr)

    def close(self) -> None:
        if self._active:
            self._bar.close()
            self._file.close()


def _plain(value: float | int | str) -> float | int | str:
    """JSON has no NaN and no infinity; they are written as words."""
    if isinstance(value, float):
        return float(f"{value:.7g}") if math.isfinite(value) else str(value)
    return value
