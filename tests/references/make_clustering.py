"""Numbers of other people's code for `clustering.json`: python -m tests.references.make_clustering FOLDER

FOLDER holds, unchanged, `swav_loss.py` of github.com/lightly-ai/lightly at e8d317fc (lightly/loss, MIT), and
`builder.py` (pcl/) and `main_pcl.py` of github.com/salesforce/PCL at 964da1f (MIT). What these need of CUDA and faiss
is replaced: tensors stay where they are, and a search answers with the distances and clusters that it is given.
"""

import ast
import json
import random
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

CLUSTERS = [0, 0, 1, 1, 1, 2, 3, 3, 3, 3, 4, 6]  # of 12 images; the sixth of seven is empty


def wave(*shape: int, pace: float) -> Tensor:
    """Numbers in [-1, 1] that look random and are the same everywhere."""
    count = int(np.prod(shape))
    return torch.sin(pace * torch.arange(count, dtype=torch.float64).square()).float().view(*shape)


def pcl_inputs() -> dict[str, Any]:
    """Three images of four, two of one cluster, in two clusterings of eight."""
    return {
        "queries": wave(3, 5, pace=0.7),
        "keys": wave(3, 5, pace=1.3),
        "hidden": (wave(5, 5, pace=0.31), wave(5, pace=0.37)),
        "last": (wave(4, 5, pace=0.41), wave(4, pace=0.43)),
        "queue": F.normalize(wave(6, 4, pace=0.53), dim=1),
        "clusters": torch.tensor([[2, 5, 2, 7], [1, 1, 7, 0]]),
        "centroids": F.normalize(wave(2, 8, 4, pace=0.59), dim=2),
        "concentrations": 0.2 + 0.1 * wave(2, 8, pace=0.61),
    }


def distances() -> Tensor:
    return 1.2 + wave(len(CLUSTERS), pace=0.29)


def load(path: Path, names: tuple[str, ...] = ()) -> dict[str, Any]:
    """What a file defines; of `names` alone, with what it imports left out, where there are any."""
    tree = ast.parse(path.read_text())
    if names:
        tree.body = [node for node in tree.body if getattr(node, "name", None) in names]
    space: dict[str, Any] = {"torch": torch, "nn": nn, "np": np, "F": F}
    exec(compile(tree, str(path), "exec"), space)
    return space


def lightly(folder: Path) -> dict[str, Any]:
    code = load(folder / "swav_loss.py")
    scores = [0.9 * wave(6, 7, pace=pace) for pace in (0.3, 0.5, 0.8)]
    loss = code["SwaVLoss"](temperature=0.1, sinkhorn_epsilon=0.05)
    queues = [0.9 * wave(4, 7, pace=pace) for pace in (0.35, 0.55)]
    return {
        "codes": code["sinkhorn"](scores[0]).tolist(),
        "loss": float(loss(scores[:2], scores[2:])),
        "loss_with_queues": float(loss(scores[:2], scores[2:], queues)),
    }


class Base(nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.fc: nn.Module = nn.Linear(5, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(x)
        return out


def pcl(folder: Path) -> dict[str, Any]:
    dist.init_process_group("gloo", init_method="tcp://127.0.0.1:29411", rank=0, world_size=1)
    torch.Tensor.cuda = lambda self, *_, **__: self  # type: ignore[method-assign]
    code = load(folder / "builder.py")
    code["sample"] = lambda population, count: random.sample(sorted(population), count)  # of a set, since Python 3.11
    given = pcl_inputs()
    model = code["MoCo"](Base, dim=4, r=6, m=1.0, T=0.2, mlp=True)
    with torch.no_grad():
        for encoder in (model.encoder_q, model.encoder_k):
            for layer, (weight, bias) in ((encoder.fc[0], given["hidden"]), (encoder.fc[2], given["last"])):
                layer.weight.copy_(weight)
                layer.bias.copy_(bias)
        model.queue.copy_(given["queue"].T)
    found = {
        "im2cluster": list(given["clusters"]),
        "centroids": list(given["centroids"]),
        "density": list(given["concentrations"]),
    }
    logits, labels, protos, proto_labels = model(
        given["queries"], given["keys"], cluster_result=found, index=torch.arange(3)
    )
    proto = sum(F.cross_entropy(a, b) for a, b in zip(protos, proto_labels, strict=True)) / len(protos)
    instance = F.cross_entropy(logits, labels)
    (instance + proto).backward()
    dist.destroy_process_group()

    class Clustering(SimpleNamespace):
        centroids = np.zeros(7 * 3, dtype=np.float32)

        def train(self, *_: Any) -> None: ...

    class Search(SimpleNamespace):
        def search(self, *_: Any) -> tuple[np.ndarray, np.ndarray]:
            return distances().square().numpy()[:, None], np.array(CLUSTERS)[:, None]

    faiss = SimpleNamespace(
        Clustering=lambda *_: Clustering(),
        StandardGpuResources=lambda: None,
        GpuIndexFlatConfig=SimpleNamespace,
        GpuIndexFlatL2=lambda *_: Search(),
        vector_to_array=lambda array: array,
    )
    run = load(folder / "main_pcl.py", ("run_kmeans",))
    run["faiss"] = faiss
    arguments = SimpleNamespace(num_cluster=["7"], gpu=0, temperature=0.2)
    return {
        "info_nce": float(instance),
        "proto_nce": float(proto),
        "gradient": model.encoder_q.fc[0].weight.grad.tolist(),
        "concentrations": run["run_kmeans"](np.zeros((12, 3), dtype=np.float32), arguments)["density"][0].tolist(),
    }


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    numbers = {"lightly": lightly(folder), "pcl": pcl(folder)}
    Path(__file__).with_name("clustering.json").write_text(json.dumps(numbers, indent=1) + "\n")
