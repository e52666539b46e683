"""The training loop, in the order of time."""

import hashlib
import time as clock
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning_fabric import Fabric
from torch import Tensor

from polygrain import distributed
from polygrain.data.batch import Batch
from polygrain.methods.base import Method, Optimization
from polygrain.schedules import Time
from polygrain.train import checkpoints
from polygrain.train.gauges import feature_gauges
from polygrain.train.logging import Log
from polygrain.train.optimizers import clip_gradients, set_schedules
from polygrain.train.order import Order
from polygrain.train.probes import Probe

ASIDE = ("gauges/", "features/", "probe/")  # records that are not terms of the loss


class Run(NamedTuple):
    """Everything a run consists of, ready to start or to continue."""

    folder: Path
    fabric: Fabric
    method: Method
    module: Any  # the method as Fabric wraps it: same parameters, with precision and gradient averaging
    optimizer: torch.optim.Optimizer
    optimization: Optimization
    order: Order
    batches: Iterator[Batch]  # from start_step on
    probe: Probe | None
    log: Log
    length: Time  # `step` is where the run starts
    stop_step: int
    log_every: int
    checkpoint_every: int  # steps
    keep: int
    saved: Mapping[str, Any]  # stored in each checkpoint: the resolved settings
    write_backbone: Any


def train(run: Run) -> dict[str, float]:
    """Trains from the run's start to its end; returns the last record of the log."""
    run.method.train()
    record: dict[str, float] = {}
    since, waited, logged_step = clock.perf_counter(), 0.0, run.length.step
    for step in range(run.length.step, run.stop_step):
        time = run.length._replace(step=step)
        set_schedules(run.optimizer, run.optimization, time)
        seed_everything(run.order.seed, step, run.fabric.global_rank)
        run.optimizer.zero_grad(set_to_none=True)
        for part in range(run.order.accumulate):
            asked = clock.perf_counter()
            batch = next(run.batches)
            views = {name: [v.to(run.fabric.device) for v in views] for name, views in batch.views.items()}
            waited += clock.perf_counter() - asked
            with run.fabric.no_backward_sync(run.module, enabled=part < run.order.accumulate - 1):
                terms = run.module(views, time)
                run.fabric.backward(terms["loss"] / run.order.accumulate)
        run.method.after_backward(time)
        norm = clip(run, time)
        stop_if_not_finite(terms, norm, step)
        run.optimizer.step()
        run.method.update_teachers(time)

        done = step + 1
        last = done == run.stop_step
        if done % run.log_every == 0 or last:
            record = measure(run, terms, norm, time)
            now = clock.perf_counter()
            record["images_per_second"] = (done - logged_step) * run.order.batch_size / (now - since)
            record["data_wait"] = waited / (now - since)
            since, waited, logged_step = now, 0.0, done
            run.log.write(record, done)
            run.log.show(summary(record, time), done)
        if run.probe is not None and (done % run.probe.every == 0 or last):
            scores = run.probe(run.method.backbone)
            record |= scores
            run.log.write(scores, done)
            run.log.say(f"step {done}: " + "  ".join(f"{name} {value:.2%}" for name, value in scores.items()))
            since, logged_step = clock.perf_counter(), done
        if done % run.checkpoint_every == 0 or last:
            save(run, done)
            since, logged_step = clock.perf_counter(), done
    run.log.close()
    return record


def seed_everything(seed: int, step: int, rank: int) -> None:
    """Drop path and the like draw from a stream that depends on seed, step and rank alone, so resuming is exact."""
    digest = hashlib.blake2b(f"{seed}/{step}/{rank}".encode(), digest_size=7).digest()
    torch.manual_seed(int.from_bytes(digest, "big"))


def clip(run: Run, time: Time) -> Tensor:
    norm = run.optimization.clip(time) if run.optimization.clip is not None else None
    parameters = [parameter for parameter in run.method.parameters() if parameter.grad is not None]
    return clip_gradients(parameters, norm, each=run.optimization.clip_each)


def stop_if_not_finite(terms: Mapping[str, Tensor], norm: Tensor, step: int) -> None:
    """Stops before the optimizer can spread a NaN; every rank decides the same."""
    sound = distributed.mean((torch.isfinite(terms["loss"]) & torch.isfinite(norm)).float())
    if sound == 1:
        return
    bad = [name for name, value in terms.items() if not torch.isfinite(value)] or ["the gradient"]
    raise FloatingPointError(
        f"{' and '.join(bad)} not finite at step {step}; the weights are those of the step before. "
        "Lower the learning rate, lengthen the warm-up or clip gradients"
    )


def measure(run: Run, terms: Mapping[str, Tensor], norm: Tensor, time: Time) -> dict[str, float]:
    values = {name: value.detach().float() for name, value in terms.items()} | {
        f"gauges/{name}": value.detach().float() for name, value in run.method.gauges().items()
    }
    values |= feature_gauges(run.method.seen)
    averaged = distributed.mean(torch.stack([*values.values()]))
    record = dict(zip(values, averaged.tolist(), strict=True))
    record["gradient_norm"] = float(norm)
    record["epoch"] = (time.step + 1) / time.steps_per_epoch
    record["lr"] = run.optimization.lr(time)
    record["weight_decay"] = run.optimization.weight_decay(time)
    if run.method.momentum is not None:
        record["momentum"] = run.method.momentum(time)
    return record


def summary(record: Mapping[str, float], time: Time) -> str:
    terms = [f"{name} {value:.3f}" for name, value in record.items() if "/" in name and not name.startswith(ASIDE)]
    speed = f"{record['images_per_second']:.0f} images/s, {record['data_wait']:.0%} waiting for data"
    return f"epoch {time.epoch + 1}/{time.epochs}  loss {record['loss']:.3f}  {'  '.join(terms)}  {speed}"


def save(run: Run, step: int) -> None:
    """The state of the run, and beside it the backbone that evaluation and export read."""
    if run.fabric.global_rank == 0:
        state = {
            "method": run.method.state_dict(),
            "optimizer": run.optimizer.state_dict(),
            "step": step,
            "settings": dict(run.saved),
        }
        checkpoints.save(run.folder, step, state, run.keep)
        run.write_backbone(step)
    run.fabric.barrier()
