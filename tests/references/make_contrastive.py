"""Numbers of the authors' code for `contrastive.json`: python -m tests.references.make_contrastive FOLDER

FOLDER holds, unchanged, `builder.py` of github.com/facebookresearch/moco at 5670021 (moco/, MIT) and `main.py` of
github.com/facebookresearch/barlowtwins at 8e8d284 (MIT). Their backbones are replaced by the identity, and calls to
CUDA leave tensors where they are.
"""

import ast
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

DIM, OUT, QUEUE, BATCH, STEPS = 6, 4, 16, 4, 3
MOMENTUM, TEMPERATURE, RATE = 0.9, 0.2, 0.5
WIDE, LAMBDA = 2048, 0.0051


def wave(*shape: int, pace: float) -> Tensor:
    """Numbers in [-1, 1] that look random and are the same everywhere."""
    count = torch.Size(shape).numel()
    return torch.sin(pace * torch.arange(1, count + 1, dtype=torch.float64).square()).view(shape)


def moco_head() -> dict[str, Tensor]:
    parts = {"0.weight": (DIM, DIM), "0.bias": (DIM,), "2.weight": (OUT, DIM), "2.bias": (OUT,)}
    return {name: wave(*shape, pace=0.31 + 0.1 * i) for i, (name, shape) in enumerate(parts.items())}


def moco_queue() -> Tensor:
    return F.normalize(wave(QUEUE, OUT, pace=0.53), dim=1)


def moco_batch(step: int) -> tuple[Tensor, Tensor]:
    return wave(BATCH, DIM, pace=0.7 + step), wave(BATCH, DIM, pace=1.3 + step)


def barlow_projector() -> dict[str, Tensor]:
    return {
        "0.weight": wave(8, WIDE, pace=0.37) / 40,
        "3.weight": wave(8, 8, pace=0.41),
        "6.weight": wave(5, 8, pace=0.43),
    }


def barlow_batch() -> tuple[Tensor, Tensor]:
    first = wave(6, WIDE, pace=0.59)
    return first, first + 0.3 * wave(6, WIDE, pace=0.61)


class Headed(nn.Module):
    """A backbone that is the identity, with a classifier."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.fc: nn.Module = nn.Linear(DIM, num_classes)

    def forward(self, x: Tensor) -> Any:
        return self.fc(x)


def load(path: Path, names: tuple[str, ...], **space: Any) -> dict[str, Any]:
    tree = ast.parse(path.read_text())
    tree.body = [node for node in tree.body if getattr(node, "name", None) in names]
    space |= {"torch": torch, "nn": nn}
    exec(compile(tree, str(path), "exec"), space)
    return space


def moco(folder: Path) -> dict[str, Any]:
    torch.Tensor.cuda = lambda self: self  # type: ignore[assignment, method-assign]
    code = load(folder / "builder.py", ("MoCo", "concat_all_gather"))
    model = code["MoCo"](Headed, dim=OUT, K=QUEUE, m=MOMENTUM, T=TEMPERATURE, mlp=True).double()
    for encoder in (model.encoder_q, model.encoder_k):
        encoder.fc.load_state_dict(moco_head())
    model.queue.copy_(moco_queue().T)
    optimizer = torch.optim.SGD(model.encoder_q.parameters(), lr=RATE)
    losses, gradients = [], []
    for step in range(STEPS):
        logits, labels = model(*moco_batch(step))
        loss = F.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        losses.append(float(loss.detach()))
        gradients.append({name: p.grad.tolist() for name, p in model.encoder_q.fc.named_parameters()})
        optimizer.step()
    return {
        "losses": losses,
        "gradients": gradients,
        "queue": model.queue.T.tolist(),
        "pointer": int(model.queue_ptr),
        "teacher": {name: p.tolist() for name, p in model.encoder_k.fc.named_parameters()},
    }


def barlow(folder: Path) -> dict[str, Any]:
    models = SimpleNamespace(resnet50=lambda **_: nn.Sequential())
    space = {"torchvision": SimpleNamespace(models=models)}
    code = load(folder / "main.py", ("BarlowTwins", "off_diagonal"), **space)
    model = code["BarlowTwins"](SimpleNamespace(projector="8-8-5", batch_size=6, lambd=LAMBDA)).double()
    model.projector.load_state_dict(barlow_projector(), strict=False)
    model.backbone = nn.Identity()
    loss = model(*barlow_batch())
    loss.backward()
    gradients = {
        name: p.grad.tolist() for name, p in model.projector.named_parameters() if not name.startswith("0.weight")
    }
    gradients["0.weight of the first 5"] = model.projector[0].weight.grad[:, :5].tolist()
    return {"loss": float(loss.detach()), "gradients": gradients, "running_mean": model.bn.running_mean.tolist()}


def main() -> None:
    folder = Path(sys.argv[1])
    dist.init_process_group("gloo", rank=0, world_size=1, store=dist.HashStore())
    values = {"moco": moco(folder), "barlow": barlow(folder)}
    (Path(__file__).parent / "contrastive.json").write_text(json.dumps(values, indent=1))


if __name__ == "__main__":
    main()
