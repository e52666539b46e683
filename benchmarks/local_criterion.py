"""The local criterion against the straightforward one, which compares each pair of views anew: time and memory.

    python -m benchmarks.local_criterion --images 64 --width 512 --threads 1

Each version runs forward and backward in a process of its own. Time is that of the processor, memory is the growth
of the peak resident size. The straightforward version here is vectorised; the one in tests/references, which
polygrain's equals, loops over images.
"""

import argparse
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from polygrain.objectives.local import Local
from polygrain.schedules import Time
from polygrain.views import Encoding, View, patch_centres

Terms = tuple[Tensor, Tensor, Tensor]


def views(images: int, width: int, large: int, small: int) -> list[Encoding]:
    generator = torch.Generator().manual_seed(0)
    made = []
    for size, cells in [(224, 7)] * large + [(96, 3)] * small:
        box = torch.rand(images, 4, generator=generator) * 150 + 50
        flipped = torch.rand(images, generator=generator) < 0.5
        patches = torch.randn(images, cells * cells, width, generator=generator).requires_grad_()
        pixels = torch.empty(images, 3, size, size, device="meta")
        view = View(pixels, box, flipped, flipped, torch.arange(images))
        made.append(Encoding(view, patches, patches, patch_centres(box, flipped, cells, cells), patches))
    return made


def cheap(encodings: Sequence[Encoding]) -> Terms:
    objective = Local((1, 1), norm="layer", num_matches=(20, 4), small_crops=True)
    objective.projector = nn.Sequential()  # patches as they are
    terms = objective(encodings, (), Time(0, 1, 1))
    return terms["invariance"], terms["variance"], terms["covariance"]


def straightforward(encodings: Sequence[Encoding]) -> Terms:
    pairs = [(i, j) for i in (0, 1) for j in range(len(encodings)) if j != i]
    totals = torch.zeros(3)
    for i, j in pairs:
        for a, b, count in ((i, j, 20), (j, i, 4)):
            one, other = encodings[a], encodings[b]
            cells = one.patches.shape[1]
            totals = totals + matched(one.patches, other.patches, one.patches, other.patches, cells) / 2
            totals = totals + matched(one.patches, other.patches, one.centres, other.centres, count) / 2
    inv, var, cov = (totals / len(pairs)).unbind()
    return inv, var, cov


def matched(a: Tensor, b: Tensor, place_a: Tensor, place_b: Tensor, count: int) -> Tensor:
    mode = "donot_use_mm_for_euclid_dist" if place_a.shape[2] == 2 else "use_mm_for_euclid_dist"
    nearest = torch.cdist(place_a.detach(), place_b.detach(), compute_mode=mode).min(2)
    kept = nearest.values.sort(dim=1, stable=True).indices[:, :count].sort(dim=1).values
    x = a.gather(1, kept[..., None].expand(-1, -1, a.shape[2]))
    y = b.gather(1, nearest.indices.gather(1, kept)[..., None].expand(-1, -1, a.shape[2]))
    (var_x, cov_x), (var_y, cov_y) = statistics(x), statistics(y)
    return torch.stack([25 * (x - y).square().mean(), 25 * (var_x + var_y) / 2, (cov_x + cov_y) / 2])


def statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    images, slots, width = x.shape
    x = x - x.mean(0)
    hinge = torch.relu(1 - (x.var(0) + 1e-4).sqrt()).mean()
    covariance = x.transpose(0, 1).mT @ x.transpose(0, 1) / (images - 1)
    off_diagonal = covariance.flatten(1)[:, :-1].view(slots, width - 1, width + 1)[:, :, 1:]
    return hinge, off_diagonal.square().sum() / width / slots


VERSIONS: dict[str, Callable[[Sequence[Encoding]], Terms]] = {"cheap": cheap, "straightforward": straightforward}


def measure(name: str, arguments: argparse.Namespace) -> tuple[float, float, list[float]]:
    """Processor seconds of the quickest forward and backward, growth of the peak in MiB, and the terms."""
    torch.set_num_threads(arguments.threads)
    encodings = views(arguments.images, arguments.width, 2, arguments.small)
    before = peak()
    seconds = []
    for _ in range(arguments.repeats):
        for encoding in encodings:
            encoding.patches.grad = None
        began = time.process_time()
        terms = VERSIONS[name](encodings)
        torch.stack(terms).sum().backward()
        seconds.append(time.process_time() - began)
    return min(seconds), peak() - before, [float(term.detach()) for term in terms]


def peak() -> float:
    """Largest resident size of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--small", type=int, default=6, help="small crops beside the two large ones")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    results = {}
    for name in VERSIONS:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            results[name] = pool.apply(measure, (name, arguments))
        seconds, mebibytes, terms = results[name]
        print(f"{name:>16}: {seconds:7.3f} s  {mebibytes:8.0f} MiB  terms {terms}")
    (ours, our_memory, _), (theirs, their_memory, _) = results.values()
    print(f"{'ratio':>16}: {theirs / ours:7.1f}    {their_memory / our_memory:8.1f}")


if __name__ == "__main__":
    main()
