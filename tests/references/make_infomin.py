"""Numbers of the authors' code for `infomin.json`: python -m tests.references.make_infomin FOLDER

FOLDER holds, unchanged, networks/util.py, memory/mem_moco.py, learning/base_trainer.py and datasets/RandAugment.py
of github.com/HobbitLong/PyContrast at 84f94ea (BSD-2-Clause). Backbones are the identity, calls to CUDA leave tensors
where they are, and pieces come in the order in which they are given, since ours are shuffled as they are cut.
"""

import ast
import json
import math
import random
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import PIL
import torch
import torch.nn.functional as F
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor, nn

from tests.references.make_contrastive import (
    BATCH,
    DIM,
    OUT,
    QUEUE,
    RATE,
    STEPS,
    moco_batch,
    moco_head,
    moco_queue,
    wave,
)

MOMENTUM, TEMPERATURE, BETA = 0.9, 0.15, 0.5
LEVELS = (10.0, 9.62, 9.3, 8.75, 8.1)
EPOCHS, STEPS_PER_EPOCH = 100, 10


def jigsaw_head() -> dict[str, Tensor]:
    parts = {f"fc1.{name}": tuple(value.shape) for name, value in moco_head().items()}
    parts |= {"fc2.weight": (OUT, 9 * OUT), "fc2.bias": (OUT,)}
    return {name: wave(*shape, pace=0.33 + 0.07 * i) for i, (name, shape) in enumerate(parts.items())}


def pieces(step: int) -> Tensor:
    """(B, 9, DIM)"""
    return wave(BATCH, 9, DIM, pace=0.9 + step)


def load(path: Path, **space: Any) -> dict[str, Any]:
    tree = ast.parse(path.read_text())
    tree.body = [node for node in tree.body if not isinstance(node, ast.Import | ast.ImportFrom)]
    exec(compile(tree, str(path), "exec"), space)
    return space


def losses(folder: Path) -> dict[str, Any]:
    torch.Tensor.cuda = lambda self: self  # type: ignore[assignment, method-assign]
    space = {"torch": torch, "nn": nn, "F": F}
    networks = load(folder / "networks" / "util.py", **space)
    memories = load(folder / "memory" / "mem_moco.py", **space)
    head = nn.Sequential(nn.Linear(DIM, DIM), nn.ReLU(), nn.Linear(DIM, OUT), networks["Normalize"](2)).double()
    teacher = nn.Sequential(nn.Linear(DIM, DIM), nn.ReLU(), nn.Linear(DIM, OUT), networks["Normalize"](2)).double()
    puzzle = networks["JigsawHead"](DIM, OUT, head="mlp").double()
    puzzle.get_shuffle_ids = lambda count: torch.arange(count)
    for side in (head, teacher):
        side.load_state_dict(moco_head())
    puzzle.load_state_dict(jigsaw_head())
    memory = memories["RGBMoCo"](OUT, K=QUEUE, T=TEMPERATURE).double()
    memory.memory.copy_(moco_queue())
    optimizer = torch.optim.SGD([*head.parameters(), *puzzle.parameters()], lr=RATE)
    found: dict[str, Any] = {"instance": [], "jigsaw": [], "gradients": []}
    for step in range(STEPS):
        query, key = moco_batch(step)
        with torch.no_grad():
            keys = teacher(key)
        logits, logits_jigsaw, labels = memory(head(query), keys, puzzle(pieces(step).flatten(0, 1)), keys)
        instance, jigsaw = F.cross_entropy(logits, labels), F.cross_entropy(logits_jigsaw, labels)
        optimizer.zero_grad()
        ((1 - BETA) * instance + BETA * jigsaw).backward()
        found["instance"].append(float(instance.detach()))
        found["jigsaw"].append(float(jigsaw.detach()))
        found["gradients"].append({name: p.grad.tolist() for name, p in puzzle.named_parameters()})
        optimizer.step()
        with torch.no_grad():
            for p, q in zip(head.parameters(), teacher.parameters(), strict=True):
                q.mul_(MOMENTUM).add_(p, alpha=1 - MOMENTUM)
    found["queue"], found["pointer"] = memory.memory.tolist(), memory.index
    found["teacher"] = {name: p.tolist() for name, p in teacher.named_parameters()}
    return found


def operations(folder: Path) -> dict[str, list[float]]:
    """What each operation is given at each level, the random sign left out."""
    for name, value in (("BILINEAR", Image.Resampling.BILINEAR), ("BICUBIC", Image.Resampling.BICUBIC)):
        setattr(Image, name, value)
    space = {"random": random, "np": np, "math": math, "PIL": PIL, "Image": Image, "ImageOps": ImageOps}
    code = load(folder / "datasets" / "RandAugment.py", ImageEnhance=ImageEnhance, **space)
    code["_randomly_negate"] = lambda value: value
    names = [name for name in code["_RAND_TRANSFORMS"] if code["LEVEL_TO_ARG"][name]]
    return {name: [code["LEVEL_TO_ARG"][name](level, {})[0] for level in LEVELS] for name in names}


def rates(folder: Path) -> dict[str, list[float]]:
    """Learning rates of each step: of the recipe with 256 images, and of 512 with the warm-up that goes with them."""
    tree = ast.parse((folder / "learning" / "base_trainer.py").read_text())
    tree.body = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    space: dict[str, Any] = {"np": np, "math": math}
    exec(compile(tree, "base_trainer.py", "exec"), space)
    trainer = object.__new__(space["BaseTrainer"])
    found = {}
    for images, peak in ((256, 0.03), (512, 0.06)):
        end = peak * 0.1**3
        at = end + (peak - end) * (1 + math.cos(math.pi * 5 / EPOCHS)) / 2
        trainer.args = SimpleNamespace(
            learning_rate=peak, cosine=True, lr_decay_rate=0.1, epochs=EPOCHS, warm=images > 256, warm_epochs=5,
            warmup_from=0.01, warmup_to=at,
        )  # fmt: skip
        group: dict[str, float] = {}
        optimizer = SimpleNamespace(param_groups=[group])
        values = found[str(images)] = []
        for epoch in range(1, EPOCHS + 1):
            trainer.adjust_learning_rate(optimizer, epoch)
            for step in range(STEPS_PER_EPOCH):
                trainer.warmup_learning_rate(epoch, step, STEPS_PER_EPOCH, optimizer)
                values.append(group["lr"])
        found[str(images)] = values[:70] + values[-1:]
    return found


def main() -> None:
    folder = Path(sys.argv[1])
    values = {"losses": losses(folder), "operations": operations(folder), "rates": rates(folder)}
    (Path(__file__).parent / "infomin.json").write_text(json.dumps(values, indent=1))


if __name__ == "__main__":
    main()
