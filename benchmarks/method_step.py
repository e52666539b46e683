"""Seconds and peak memory of one step of every method, at one common setting.

    python -m benchmarks.method_step [--methods mugs dino ...] [--encoder vit_tiny_64] [--batch-size 16] [--steps 5]

The same encoder, batch and two large crops for all (MAE and supervised training see one, by nature; MoCo v2 and PCL
encode one with each network; InfoMin sees nine pieces besides; Mugs' student and teacher see two each), no small
crops, and the papers' sizes of heads, prototypes and queues. Each method is a process of its own, on one thread,
without loading of images: forward, backward, clipping, optimizer and teacher, median of the steps after one to warm up.
Memory is the peak of the process, less what it held before the method was built. What methods do before an epoch (the
k-means of DeepCluster-v2 and PCL) is done once, and not timed.
"""

import argparse
import dataclasses
import resource
import statistics
import subprocess
import sys
import time as clock
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from polygrain.data.loading import ViewBatches
from polygrain.data.scenes import Scenes
from polygrain.methods import METHODS
from polygrain.methods.base import Method
from polygrain.parts.encoder import Encoder, EncoderSettings
from polygrain.schedules import RunLength, Time
from polygrain.train.optimizers import build_optimizer, clip_gradients, set_schedules

IMAGES = 4096
CLASSES = 1000


def embed_at_random(method: Method) -> Callable[..., Tensor]:
    """Vectors as if of all images, for methods that cluster them."""

    def embed(project: Callable[[Tensor], Tensor], *, crops: str | None = None, teacher: bool = False) -> Tensor:
        views = 1 if crops is None else next(c.count for c in method.crops if c.name == crops)
        with torch.no_grad():
            return torch.stack([project(torch.randn(IMAGES, method.student.dim)) for _ in range(views)])

    return embed


def resident() -> float:
    """MiB of this process now."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def measure(name: str, encoder_name: str, size: int, batch_size: int, steps: int) -> str:
    """A row of the table."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    before = resident()
    known = {field.name for field in dataclasses.fields(METHODS[name])}
    wanted = {"large_size": size, "small_size": size // 4, "small_crops": 0, "classes": CLASSES}
    settings = METHODS[name](**{option: value for option, value in wanted.items() if option in known})
    method = settings.build(Encoder(EncoderSettings(name=encoder_name, position="dino"))).train()
    method.prepare(IMAGES)
    epochs, steps_per_epoch = 100, IMAGES // batch_size
    optimization = settings.optimization(RunLength(IMAGES, batch_size, epochs, steps_per_epoch))
    optimizer = build_optimizer(method, optimization)
    views = ViewBatches(Scenes(IMAGES, size=size), method.crops, seed=0)
    begin = epochs // 2 * steps_per_epoch  # past all warm-ups
    method.start_epoch(Time(begin, steps_per_epoch, epochs), embed_at_random(method))
    seconds = []
    for step in range(begin, begin + steps + 1):
        time = Time(step, steps_per_epoch, epochs)
        batch = views.__getitems__([(time.epoch, image) for image in range(batch_size)])
        labels = (torch.arange(batch_size) % CLASSES,) if method.needs_labels else ()
        start = clock.perf_counter()
        set_schedules(optimizer, optimization, time)
        optimizer.zero_grad(set_to_none=True)
        method(batch.views, time, *labels)["loss"].backward()
        method.after_backward(time)
        clip = optimization.clip(time) if optimization.clip is not None else None
        trained = [parameter for parameter in method.parameters() if parameter.grad is not None]
        clip_gradients(trained, clip, each=optimization.clip_each)
        optimizer.step()
        method.update_teachers(time)
        seconds.append(clock.perf_counter() - start)
    median, peak = statistics.median(seconds[1:]), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before
    parameters = sum(parameter.numel() for parameter in method.parameters()) / 1e6
    crops = sum(view.count for view in method.crops)
    return f"| {name} | {crops} | {parameters:.1f} | {median:.2f} | {batch_size / median:.1f} | {peak:,.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=sorted(METHODS), choices=METHODS)
    parser.add_argument("--encoder", default="vit_tiny_64")
    parser.add_argument("--size", type=int, default=64, help="of the crops, in pixels")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--here", action="store_true", help="in this process, and no head of the table")
    given = parser.parse_args()
    if given.here:
        for name in given.methods:
            print(measure(name, given.encoder, given.size, given.batch_size, given.steps), flush=True)
        return
    head = "| method | crops | million parameters | seconds a step | images/s | peak MiB |"
    print(f"{head}\n|---|---|---|---|---|---|", flush=True)
    for name in given.methods:
        again = [*sys.argv[1:], "--here", "--methods", name]
        subprocess.run([sys.executable, "-m", "benchmarks.method_step", *again], check=True)


if __name__ == "__main__":
    main()
