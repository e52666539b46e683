"""The log of a run: JSON lines as the truth, a progress bar for people, other loggers on request."""

import errno
import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from polygrain.weights.durable import write_durably

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
    """MLflow tracking (extra `mlflow`): to $MLFLOW_TRACKING_URI, else to a data base in the run folder."""

    def __init__(self, run: Path) -> None:
        try:
            import mlflow
        except ImportError as error:
            raise ValueError("--loggers mlflow needs its package: pip install 'polygrain[mlflow]'") from error
        if "MLFLOW_TRACKING_URI" not in os.environ:
            mlflow.set_tracking_uri(f"sqlite:///{(run / 'mlflow.db').absolute()}")
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


def started(name: str, run: Path) -> Sink:
    """A logger that is ready.

    Raises:
        ValueError: when its package is missing or does not come up, in one line.
    """
    try:
        return SINKS[name](run)
    except ValueError:
        raise
    except Exception as error:  # their own classes, of packages that are not imported here
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ValueError(f"--loggers {name} cannot start: {reason}") from error


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
        self._path = run / "log.jsonl"
        self._unwritten: list[str] = []
        if dropped := cut_after(self._path, start):
            self.say(f"the log loses {dropped} lines after step {start}: they will be written again")
        self._sinks: list[Sink] = [started(name, run) for name in loggers]
        self._terminal = sys.stderr.isatty()
        self._bar: Any = tqdm(total=steps, initial=start, unit="step", disable=not self._terminal, dynamic_ncols=True)
        self._steps, self._shown = steps, start

    def write(self, record: Record, step: int) -> None:
        if not self._active:
            return
        self._append(json.dumps({"step": step, **{k: _plain(v) for k, v in record.items()}}) + "\n")
        for sink in self._sinks:
            sink.log(record, step)

    def _append(self, line: str) -> None:
        """A disk that refuses never ends a run: lines wait in memory until it takes them."""
        self._unwritten.append(line)
        data = "".join(self._unwritten).encode()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab", buffering=0) as file:
                size = os.fstat(file.fileno()).st_size
                try:
                    if file.write(data) != len(data):
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
                except OSError:
                    file.truncate(size)  # half a line would spoil the next
                    raise
        except OSError as error:
            if len(self._unwritten) == 1:
                self.say(f"cannot write {self._path}: {error.strerror}; its lines wait in memory")
        else:
            self._unwritten = []

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
            self._active = False


def cut_after(path: Path, step: int | None) -> int:
    """Removes the records after a step, and a line that was not finished; returns how many lines went."""
    if not path.exists():
        return 0
    lines = path.read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if _complete(line) and (step is None or json.loads(line)["step"] <= step)]
    if len(kept) < len(lines):
        write_durably(path, lambda file: file.writelines(kept))
    return len(lines) - len(kept)


def _complete(line: bytes) -> bool:
    try:
        return line.endswith(b"\n") and "step" in json.loads(line)
    except ValueError:
        return False


def _plain(value: float | int | str) -> float | int | str:
    """Nine digits, enough to tell any two float32 apart. JSON has no NaN and no infinity: they are written as words."""
    if isinstance(value, float):
        return float(f"{value:.9g}") if math.isfinite(value) else str(value)
    return value
