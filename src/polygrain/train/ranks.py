"""Several processes that train together: what they agree on, and what is told when one of them is gone."""

import contextlib
import json
import os
import re
import socket
import sys
import threading
import time as clock
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch.distributed as dist

from polygrain import distributed
from polygrain.train.stops import Lost

FOLDER = ".ranks"
PATIENT = timedelta(hours=2)  # for what one rank does while others wait: saving, measuring
GRACE = 8.0  # seconds that a collective has to notice a rank that is gone
SLOW = ("starting", "saving", "measuring")  # phases that may take that long
LOST_CONTACT = re.compile(r"gloo|nccl|connection (closed|reset|refused)|timed? ?out|socket|broken pipe", re.IGNORECASE)


class Pulse:
    """Says twice a second, in a file of the run, where this rank is; ends the process when it hangs or is left alone.

    In one process it does nothing. It takes the place of Fabric's own observer, which kills all processes when one has
    ended badly, before they can say which.

    Args:
        patience: seconds without a new phase after which a rank counts as hung.
    """

    def __init__(self, folder: Path, patience: float) -> None:
        self._alone = distributed.world_size() == 1
        self._rank, self._patience = distributed.rank(), patience
        self._step, self._phase, self._since = 0, "starting", clock.monotonic()
        if self._alone:
            return
        self._folder = folder / FOLDER
        self._folder.mkdir(parents=True, exist_ok=True)
        self._group: Any = dist.new_group(backend="gloo", timeout=PATIENT)
        self._ended = threading.Event()
        self._gone_since: float | None = None
        for thread in threading.enumerate():
            if thread.name == "child-process-observer":
                thread._run = lambda: True  # type: ignore[attr-defined] # it looks once more, and finds all well
        self._tell(0.0)
        self._thread = threading.Thread(target=self._beat, daemon=True, name="pulse")
        self._thread.start()

    def at(self, step: int, phase: str) -> None:
        self._step, self._phase, self._since = step, phase, clock.monotonic()

    def wait_for_all(self) -> None:
        """A barrier for slow things: its patience is hours, but a rank that dies ends it."""
        if not self._alone:
            dist.barrier(group=self._group)

    def stop(self, *, well: bool) -> None:
        """Ends it; other ranks that look learn whether this one ended as it should."""
        if not self._alone:
            self._ended.set()
            self._thread.join()  # a beat on its way would say that this rank still runs
            if well:
                self._tell(0.0, ended=True)

    def explain(self, error: Exception) -> Lost | None:
        """What an error of a collective means; None when it is an error of this rank's own, which is told here."""
        if self._alone:
            return None
        if not LOST_CONTACT.search(str(error)):
            failed = f"rank {self._rank} failed at step {self._step} ({self._phase})"
            print(f"polygrain: {failed}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            return None
        clock.sleep(0.7)  # the others write their files twice a second; a process that died may not be buried yet
        others = [self._look_at(rank) for rank in range(distributed.world_size()) if rank != self._rank]
        return Lost(
            f"rank {self._rank} lost contact at step {self._step} ({self._phase}): {'; '.join(others)}. "
            "Look for that rank's own message above; --resume continues from the last checkpoint"
        )

    def _look_at(self, rank: int) -> str:
        try:
            told: dict[str, Any] = json.loads((self._folder / f"{rank}.json").read_text())
        except (OSError, ValueError):
            return f"rank {rank} never began"
        where = f"rank {rank} (process {told['pid']} on {told['host']})"
        at = f"at step {told['step']} ({told['phase']})"
        if told["ended"]:
            return f"{where} had ended; it was {at}"
        if told["host"] == socket.gethostname() and not _alive(told["pid"]):
            return f"{where} is gone; it was {at}"
        return (
            f"{where} still runs or cannot be seen from here; it was {at} and had not moved for {told['still']:.0f} s"
        )

    def _beat(self) -> None:
        while not self._ended.wait(0.5):
            still = clock.monotonic() - self._since
            self._tell(still)
            self._leave_if_alone()
            limit = PATIENT.total_seconds() if self._phase in SLOW else self._patience
            if still > limit:
                told_step = f"step {self._step} ({self._phase})"
                print(
                    f"polygrain: rank {self._rank} hangs at {told_step} for {still:.0f} s", file=sys.stderr, flush=True
                )
                os._exit(Lost.exit_code)

    def _tell(self, still: float, *, ended: bool = False) -> None:
        told = {"pid": os.getpid(), "host": socket.gethostname(), "step": self._step, "phase": self._phase}
        with contextlib.suppress(OSError):  # where a rank was is a help, not a need
            aside = self._folder / f"{self._rank}.{threading.get_ident()}.tmp"
            aside.write_text(json.dumps({**told, "still": still, "ended": ended}))
            aside.replace(self._folder / f"{self._rank}.json")  # whole at any moment: a rank may die while it writes

    def _leave_if_alone(self) -> None:
        """Where another rank is gone, the next collective fails and tells; a rank that never gets there leaves here."""
        told = [self._look_at(rank) for rank in range(distributed.world_size()) if rank != self._rank]
        if not any("is gone" in line for line in told):
            self._gone_since = None
            return
        self._gone_since = self._gone_since or clock.monotonic()
        if clock.monotonic() - self._gone_since > GRACE:
            where = f"rank {self._rank}, at step {self._step} ({self._phase}), leaves"
            print(f"polygrain: {where}: {'; '.join(told)}", file=sys.stderr, flush=True)
            os._exit(Lost.exit_code)


def _alive(pid: int) -> bool:
    """A process that has ended but whose parent has not asked for it yet (a zombie) is not alive."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return not Path("/proc/self").exists()
