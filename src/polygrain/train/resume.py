"""Whether what is asked for now is the run that a checkpoint is of."""

from collections.abc import Mapping
from typing import Any

import torch

# what may change between two parts of a run without making it another one
FREE = {
    "out", "start_from", "allow_missing", "devices", "nodes", "accelerator", "strategy", "checkpointing", "compile",
    "workers", "worker_timeout_seconds", "timeout_seconds", "threads", "log_every", "checkpoint_every_epochs",
    "checkpoint_every_steps", "checkpoint_every_minutes", "keep", "keep_going", "probe_every_epochs", "loggers",
    "resume", "stop_after_steps", "max_bad_fraction", "scale", "data", "quarantine",
}  # fmt: skip


def circumstances(ranks: int) -> dict[str, str]:
    """What the last bits of a result depend on besides the choices."""
    return {"devices": str(ranks), "threads": str(torch.get_num_threads()), "torch": str(torch.__version__)}


def check_same_run(saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuses to continue a run with other choices: the result would be neither run.

    Args:
        saved: the choices in the checkpoint, nested as in the run's config.yaml.
        now: those of today.

    Raises:
        ValueError: naming what differs.
    """
    before, after = _flat(saved), _flat(now)
    changed = [name for name in sorted({*before, *after} - FREE) if before.get(name) != after.get(name)]
    if changed:
        told = ", ".join(f"{name} was {before.get(name)}, is now {after.get(name)}" for name in changed[:4])
        more = f" and {len(changed) - 4} more" if len(changed) > 4 else ""
        raise ValueError(
            f"cannot resume with other choices: {told}{more}; leave them as they were, "
            "or begin a new run from these weights with --from RUN --out ANOTHER"
        )


def check_same_images(saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuses to continue on other images: which image comes when depends on all of them.

    Raises:
        ValueError: with both numbers.
    """
    if saved == now:
        return
    what = (
        f"{saved['images']:,} then, {now['images']:,} now"
        if saved["images"] != now["images"]
        else f"still {now['images']:,}, but other names"
    )
    raise ValueError(
        f"cannot resume on other images ({what}); give the folder and the --quarantine list the run began with, "
        "or begin a new run from these weights with --from RUN --out ANOTHER"
    )


def no_longer_exact(saved: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """What changed that leaves the run the same but not to the last bit."""
    return [f"{name} was {saved.get(name)}, is now {now[name]}" for name in now if saved.get(name) != now[name]]


def _flat(choices: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in choices.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = list(value) if isinstance(value, tuple) else value
    return flat
