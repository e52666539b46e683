"""Seconds and memory of one Mugs step at the official sizes, split into its parts.

python -m benchmarks.mugs_step            # ViT-S/16, 2 + 2 + 10 crops, 8 images, 2 threads
python -m benchmarks.mugs_step --dense    # the losses alone, beside the same losses pair by pair
"""

import argparse
import resource
import statistics
import time as clock
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from tests.references.dense_mugs import dense_distillation, dense_info_nce
from torch import Tensor, nn

from polygrain.losses.contrastive import info_nce
from polygrain.losses.distillation import prototype_distillation
from polygrain.losses.pairs import pair_weights
from polygrain.methods.mugs import Mugs
from polygrain.parts.encoder import Encoder, EncoderSettings
from polygrain.schedules import RunLength, Time
from polygrain.train.optimizers import build_optimizer, clip_gradients, set_schedules
from polygrain.views import Crops, View

PARTS = ("teacher", "student", "losses", "backward", "clip", "optimizer", "ema")


class Seconds(NamedTuple):
    """Wall-clock seconds, and CPU seconds of all threads, which other work on the machine disturbs less."""

    wall: float
    cpu: float

    @classmethod
    def now(cls) -> "Seconds":
        return cls(clock.perf_counter(), clock.process_time())

    def since(self, start: "Seconds") -> "Seconds":
        return Seconds(self.wall - start.wall, self.cpu - start.cpu)


class Stopwatch:
    """Seconds by part, one entry per step."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Seconds]] = []

    def time(self, part: str, work: Callable[[], object]) -> None:
        start = Seconds.now()
        work()
        self.add(part, Seconds.now().since(start))

    def watch(self, part: str, module: nn.Module) -> None:
        """Adds up the forward calls of a module, one per crop size."""
        started: list[Seconds] = []
        module.register_forward_pre_hook(lambda *_: started.append(Seconds.now()))
        module.register_forward_hook(lambda *_: self.add(part, Seconds.now().since(started.pop())))

    def add(self, part: str, seconds: Seconds) -> None:
        before = self.steps[-1].get(part, Seconds(0.0, 0.0))
        self.steps[-1][part] = Seconds(before.wall + seconds.wall, before.cpu + seconds.cpu)

    def median(self, part: str) -> Seconds:
        """Of all steps but the first, wall and CPU each for itself."""
        return Seconds(*(statistics.median(values) for values in zip(*(s[part] for s in self.steps[1:]), strict=True)))


def random_view(crops: Crops, images: int) -> View:
    box = torch.tensor([0.0, 0.0, crops.size, crops.size]).expand(images, -1)
    no = torch.zeros(images, dtype=torch.bool)
    return View(torch.randn(images, 3, crops.size, crops.size), box, no, no, torch.arange(images))


def time_steps(images: int, steps: int) -> None:
    encoder = Encoder(EncoderSettings(position="dino", arguments={"drop_path_rate": 0.1}))
    settings = Mugs(freeze_prototypes_epochs=0)
    method = settings.build(encoder).train()
    optimization = settings.optimization(RunLength(images=1000, batch_size=images, epochs=100, steps_per_epoch=100))
    optimizer = build_optimizer(method, optimization)
    watch = Stopwatch()
    watch.watch("teacher", method.backbone)
    watch.watch("student", method.student)
    for step in range(steps + 1):
        time = Time(step, 100, 100)
        views = {crops.name: [random_view(crops, images) for _ in range(crops.count)] for crops in method.crops}
        watch.steps.append({})
        optimizer.zero_grad(set_to_none=True)
        start = Seconds.now()
        loss = method(views, time)["loss"]
        forward = Seconds.now().since(start)
        watch.add("losses", forward.since(watch.steps[-1]["teacher"]).since(watch.steps[-1]["student"]))
        watch.time("backward", loss.backward)
        method.after_backward(time)
        trained = [parameter for parameter in method.parameters() if parameter.grad is not None]
        watch.time("clip", lambda trained=trained: clip_gradients(trained, settings.clip, each=True))
        set_schedules(optimizer, optimization, time)
        watch.time("optimizer", optimizer.step)
        watch.time("ema", lambda time=time: method.update_teachers(time))
        print(f"step {step}: loss {float(loss.detach()):.3f}", flush=True)
    print(f"median of {steps} steps after one to warm up, {images} images, {torch.get_num_threads()} threads:")
    medians = {part: watch.median(part) for part in PARTS}
    medians["sum"] = Seconds(*map(sum, zip(*medians.values(), strict=True)))
    for part, (wall, cpu) in medians.items():
        print(f"  {part:10s} {wall:7.3f} s {cpu:7.3f} s CPU")
    print(f"peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


def compare_losses(images: int, repeats: int, views: int = 12) -> None:
    """Forward and backward of one InfoNCE and of the group loss, ours and pair by pair."""
    weights = pair_weights(2, views, 2)
    unit = F.normalize(torch.randn(views + 2, images, 256), dim=-1)
    rows = F.normalize(torch.randn(65536, 256), dim=-1)
    lengths = torch.ones(65536, 1)
    assignment = (torch.randn(2, images, 65536)).softmax(-1)

    def ours_contrast(student: Tensor, prototypes: Tensor) -> Tensor:
        return info_nce(student, unit[:2], rows, weights, 0.2).loss

    def dense_contrast(student: Tensor, prototypes: Tensor) -> Tensor:
        return dense_info_nce(student, unit[:2], rows, 0.2, 2)

    def ours_groups(student: Tensor, prototypes: Tensor) -> Tensor:
        return prototype_distillation(student, prototypes, lengths, assignment, weights, 0.1)

    def dense_groups(student: Tensor, prototypes: Tensor) -> Tensor:
        return dense_distillation(student, torch._weight_norm(prototypes, lengths), assignment, 0.1, 2)

    for function in (ours_contrast, dense_contrast, ours_groups, dense_groups):
        taken: list[Seconds] = []
        for _ in range(repeats):
            student, prototypes = unit[2:].clone().requires_grad_(), rows.clone().requires_grad_()
            start = Seconds.now()
            loss = function(student, prototypes)
            loss.backward()
            taken.append(Seconds.now().since(start))
        wall, cpu = (min(values) for values in zip(*taken, strict=True))
        print(f"  {function.__name__:15s} {wall:.3f} s {cpu:.3f} s CPU  loss {float(loss.detach()):.5f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dense", action="store_true", help="compare the losses with their dense form")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.dense:
        compare_losses(options.images, options.steps)
    else:
        time_steps(options.images, options.steps)


if __name__ == "__main__":
    main()
