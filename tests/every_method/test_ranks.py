"""Two processes with half of the images each have the loss, the gradients and the buffers of one with all of them."""

import functools

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from polygrain.methods import METHODS
from polygrain.methods.base import Method
from polygrain.parts.batch_norm import synchronise_batch_norm
from tests.every_method.tiny import BATCH, ENCODERS, begin, build, family_of, step
from tests.methods.views import part, random_views
from tests.ranks import run_ranks

APART: dict[str, str] = {}  # methods that draw something per process, and what
# methods whose heads or losses are in float32 whatever they are given, and which
SINGLE: dict[str, str] = {
    "dino": "projected vectors",
    "ibot": "projected vectors",
    "infomin": "keys and queries",
    "mae": "predicted pixels",
    "mocov2": "keys and queries",
    "mst": "projected vectors",
    "mugs": "keys and projected vectors",
    "pcl": "features to cluster",
    "supervised": "logits",
}


def seen(name: str) -> dict[str, Tensor]:
    """Loss, gradients and buffers after one batch: gradients are averaged over processes, as in training."""
    arguments = ENCODERS["vit"][1]
    drop, arguments["drop_path_rate"] = arguments["drop_path_rate"], 0.0  # is drawn per process
    dtype = torch.float32 if name in SINGLE else torch.float64
    method: Method = build(name, family_of(name)).to(dtype)
    arguments["drop_path_rate"] = drop
    begin(method, BATCH)
    views = random_views(method.crops, BATCH, dtype=dtype)
    if dist.is_initialized():
        synchronise_batch_norm(method)
        half = BATCH // dist.get_world_size()
        views = part(views, slice(dist.get_rank() * half, (dist.get_rank() + 1) * half))
    loss = step(method, views)["loss"].detach()
    found = {f"gradient of {key}": p.grad for key, p in method.named_parameters() if p.grad is not None}
    if dist.is_initialized():
        for value in (loss, *found.values()):
            dist.all_reduce(value)
            value /= dist.get_world_size()
    return {"loss": loss, **found, **{key: value.clone() for key, value in method.named_buffers()}}


def every_method() -> dict[str, dict[str, Tensor]]:
    return {name: seen(name) for name in METHODS}


@functools.cache
def both() -> tuple[dict[str, dict[str, Tensor]], list[dict[str, dict[str, Tensor]]]]:
    return every_method(), run_ranks(every_method)


@pytest.mark.parametrize("name", METHODS)
def test_two_processes_equal_one(name: str) -> None:
    if name in APART:
        pytest.skip(APART[name])
    alone, ranks = both()
    exact = 1e-5 if name in SINGLE else 1e-9
    for found in ranks:
        wanted = alone[name]
        assert found[name].keys() == wanted.keys()
        assert wanted["loss"].dtype == (torch.float32 if name in SINGLE else torch.float64)
        torch.testing.assert_close(found[name]["loss"], wanted["loss"], rtol=exact, atol=exact)
        scale = torch.stack([w.norm() for k, w in wanted.items() if k.startswith("gradient")]).norm()
        for key, value in wanted.items():
            near = 10 * exact * (scale if key.startswith("gradient") else value.double().norm()) + exact / 10
            assert (found[name][key].double() - value.double()).norm() <= near, key
