"""The training loop, in the order of time."""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor

from polygrain import distributed
from polygrain.data.batch import Batch
from polygrain.methods.base import Method
from polygrain.methods.optimization import Optimization
from polygrain.schedules import Time
from polygrain.train.alarm import Alarm, not_finite
from polygrain.train.embedding import Embedder
from polygrain.train.gauges import feature_gauges
from polygrain.train.keeping import Keeper
from polygrain.train.logging import Log
from polygrain.train.optimizers import clip_gradients, set_schedules
from polygrain.train.order import Order
from polygrain.train.pace import Pace
from polygrain.train.probes import Probe
from polygrain.train.ranks import Pulse
from polygrain.train.signals import StopRequest, exit_code, listening
from polygrain.train.stops import Dead, Interrupted, Lost, Stopped

ASIDE = ("gauges/", "features/", "probe/")  # records that are not terms of the loss
LOOK_EVERY_STEPS = 10  # how often the alarm looks


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
    embedder: Embedder
    probe: Probe | None
    log: Log
    alarm: Alarm
    keeper: Keeper
    pulse: Pulse
    length: Time  # `step` is where the run starts
    stop_step: int
    log_every: int
    keep_going: bool
    saved: Mapping[str, Any]  # stored in each checkpoint beside the state of method and optimizer


def train(run: Run) -> dict[str, float]:
    """Trains from the run's start to its end; returns the last record of the log.

    Raises:
        Stopped: when the run ends early; what is good of it is saved.
    """
    well = False
    with listening() as request:
        try:
            record = _train(run, request)
            well = True
            return record
        except Stopped as stopped:
            well = not isinstance(stopped, Lost)
            raise
        except Exception as error:
            lost = run.pulse.explain(error)
            if lost is None:
                raise
            raise lost from error
        finally:
            run.pulse.stop(well=well)
            run.log.close()


def _train(run: Run, request: StopRequest) -> dict[str, float]:
    run.method.train()
    record: dict[str, float] = {}
    pace = Pace(run.length.step)
    look_every = min(LOOK_EVERY_STEPS, max(1, run.length.steps // 20))
    if run.length.step == 0:
        save(run, 0)  # a disk that refuses is better known now, and an early failure can be looked into
    for step in range(run.length.step, run.stop_step):
        time = run.length._replace(step=step)
        done, last = step + 1, step + 1 == run.stop_step
        set_schedules(run.optimizer, run.optimization, time)
        seed_everything(run.order.seed, step, run.fabric.global_rank)
        if step % time.steps_per_epoch == 0:
            run.pulse.at(step, "measuring")
            run.method.start_epoch(time, partial(run.embedder, epoch=time.epoch))
        buffers_before = [buffer.clone() for buffer in run.method.buffers()] if run.keep_going else []
        run.optimizer.zero_grad(set_to_none=True)
        terms, images = forward_and_backward(run, time, pace)
        run.method.after_backward(time)
        norm = clip(run, time)

        sound = torch.isfinite(terms["loss"]) & torch.isfinite(norm)
        mine = [not sound, request.signal is not None, last or run.keeper.due(done)]
        broken, asked_to_stop, save_now = distributed.anywhere(torch.tensor(mine, device=run.fabric.device)).tolist()
        if broken:
            refuse_step(run, terms, norm, time, images)
            for buffer, before in zip(run.method.buffers(), buffers_before, strict=True):
                buffer.copy_(before)
        else:
            run.optimizer.step()
            run.method.update_teachers(time)

        logged = done % run.log_every == 0 or last
        if logged or done % look_every == 0:
            record = measure(run, terms, norm, time)
            heed_alarm(run, record, time, images, last=last)
        if logged:
            record |= pace.read(done, run.order.batch_size)
            run.log.write(record, done)
            run.log.show(summary(record, time), done)
        if run.probe is not None and (done % run.probe.every == 0 or last):
            run.pulse.at(step, "measuring")
            scores = run.probe(run.method.backbone)
            record |= scores
            run.log.write(scores, done)
            run.log.say(f"step {done}: " + "  ".join(f"{name} {value:.2%}" for name, value in scores.items()))
            pace.restart(done)
        if save_now or asked_to_stop:
            save(run, done, last=last or asked_to_stop)
            pace.restart(done)
        if asked_to_stop and not last:
            code = exit_code(request.signal) if request.signal is not None else 143
            told = f"asked to stop: step {done} is saved in {run.folder}; --resume continues from there"
            raise Interrupted(told, code)
    return record


def forward_and_backward(run: Run, time: Time, pace: Pace) -> tuple[dict[str, Tensor], list[Tensor]]:
    """Gradients of one optimizer step; returns the terms of its last batch and the images of all."""
    images = []
    for part in range(run.order.accumulate):
        run.pulse.at(time.step, "waiting for data")
        with pace.waiting():
            batch = next(run.batches)
            views = {name: [v.to(run.fabric.device) for v in views] for name, views in batch.views.items()}
            labels = (cast(Tensor, batch.labels).to(run.fabric.device),) if run.method.needs_labels else ()
        images.append(batch.image)
        run.pulse.at(time.step, "training")
        with run.fabric.no_backward_sync(run.module, enabled=part < run.order.accumulate - 1):
            terms = run.module(views, time, *labels)
            run.fabric.backward(terms["loss"] / run.order.accumulate)
    return terms, images


def seed_everything(seed: int, step: int, rank: int) -> None:
    """Drop path and the like draw from a stream that depends on seed, step and rank alone, so resuming is exact."""
    digest = hashlib.blake2b(f"{seed}/{step}/{rank}".encode(), digest_size=7).digest()
    torch.manual_seed(int.from_bytes(digest, "big"))


def clip(run: Run, time: Time) -> Tensor:
    norm = run.optimization.clip(time) if run.optimization.clip is not None else None
    parameters = [parameter for parameter in run.method.parameters() if parameter.grad is not None]
    return clip_gradients(parameters, norm, each=run.optimization.clip_each)


def refuse_step(run: Run, terms: Mapping[str, Tensor], norm: Tensor, time: Time, images: Sequence[Tensor]) -> None:
    """A loss or gradient is no number: the optimizer and the teachers do not see this step."""
    record = measure(run, terms, norm, time)
    flags = distributed.anywhere(~torch.isfinite(torch.stack([value.detach() for value in terms.values()])))
    bad = [name for name, flag in zip(terms, flags.tolist(), strict=True) if flag] or ["the gradient"]
    stop_or_warn(run, not_finite(bad, time.step, record), record, time, images)


def heed_alarm(run: Run, record: Mapping[str, float], time: Time, images: Sequence[Tensor], *, last: bool) -> None:
    """Tells signs of death that have lasted a while, and stops at those that have lasted long."""
    for sign in run.alarm.look(record, time.step + 1):
        run.log.say(f"warning: {sign}")
    verdict = run.alarm.verdict(last=last)
    if verdict is not None:
        stop_or_warn(run, verdict, record, time, images)


def stop_or_warn(run: Run, reason: Dead, record: Mapping[str, float], time: Time, images: Sequence[Tensor]) -> None:
    """Keeps what is needed to look into it, then stops, unless the person wants to go on."""
    told = {
        "reason": str(reason),
        "step": time.step,
        "images": torch.cat([*images]).tolist(),
        "record": {name: value if abs(value) < float("inf") else str(value) for name, value in record.items()},
    }
    path = run.folder / f"failure-rank{run.fabric.global_rank}.json"
    if not path.exists():  # the first failure is the one to look into
        with contextlib.suppress(OSError):  # a disk that refuses must not hide the reason
            path.write_text(json.dumps(told, indent=1))
    if not run.keep_going:
        raise Dead(
            f"{reason} The checkpoints from before stand in {run.folder}; the batch and all readings are in "
            f"{path.name}. --keep-going trains on regardless"
        )
    run.log.say(f"warning: {reason}")


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


def save(run: Run, step: int, *, last: bool = False) -> None:
    """The state of the run, and beside it the backbone that evaluation and export read."""

    def state() -> dict[str, Any]:
        return {
            "method": run.method.state_dict(),
            "optimizer": run.optimizer.state_dict(),
            "step": step,
            **run.saved,
        }

    run.pulse.at(step, "saving")
    try:
        if run.fabric.global_rank == 0:
            write = run.keeper.save_last if last else run.keeper.save
            write(step, state, healthy=run.alarm.healthy)
    finally:
        run.pulse.wait_for_all()
