"""How parameters move: LARS, parameter groups, schedules per group, clipping."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from polygrain.methods.base import Method, Optimization
from polygrain.schedules import Time


class LARS(Optimizer):
    """SGD with momentum whose step is scaled, tensor by tensor, to the length of the weights.

    A tensor p of two or more dimensions takes g <- g + weight_decay p, then g <- g trust ||p|| / ||g|| (not scaled
    where either norm is 0); one of fewer takes g as it is. Then v <- momentum v + g and p <- p - lr v. This is the
    variant of VICReg, MoCo-v3 and MAE: no epsilon, no clipping, lr outside the momentum (LARS, arXiv:1708.03888).
    """

    def __init__(
        self,
        parameters: Iterable[Tensor] | Iterable[dict[str, Any]],
        *,
        lr: float,
        weight_decay: float = 0.0,
        momentum: float = 0.9,
        trust: float = 1e-3,
    ) -> None:
        defaults = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "trust": trust}
        super().__init__(parameters, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]  # overloaded
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            for scaled in (True, False):
                members = [p for p in parameters if (p.ndim > 1) == scaled]
                if members:
                    gradients = [cast(Tensor, p.grad) for p in members]
                    self._move(members, trusted(members, gradients, group) if scaled else gradients, group)
        return loss

    def _move(self, parameters: list[Tensor], gradients: list[Tensor], group: Mapping[str, Any]) -> None:
        for parameter in parameters:
            if "momentum_buffer" not in self.state[parameter]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        velocities = [self.state[parameter]["momentum_buffer"] for parameter in parameters]
        torch._foreach_mul_(velocities, group["momentum"])
        torch._foreach_add_(velocities, gradients)
        torch._foreach_add_(parameters, velocities, alpha=-group["lr"])


def trusted(parameters: list[Tensor], gradients: list[Tensor], group: Mapping[str, Any]) -> list[Tensor]:
    """Gradients with decay, scaled to trust times the norm of their parameters."""
    decayed = list(torch._foreach_add(gradients, parameters, alpha=group["weight_decay"]))
    lengths = torch.stack(list(torch._foreach_norm(parameters)))
    steps = torch.stack(list(torch._foreach_norm(decayed)))
    ratios = torch.where((lengths > 0) & (steps > 0), group["trust"] * lengths / steps, 1.0)
    torch._foreach_mul_(decayed, list(ratios.unbind()))
    return decayed


def parameter_groups(method: nn.Module, optimization: Optimization) -> list[dict[str, Any]]:
    """Trainable parameters in up to four groups: with and without decay, patch embedding or not.

    A parameter decays unless it has one dimension or is called `.bias`; position codes, class tokens and the (K, 1)
    gains of prototypes therefore decay (DINO, Mugs). A group holds `lr_scale`, a factor on the learning rate, and
    `decays`.
    """
    names = ("normal", "patch_embed", "no_wd", "patch_embed_no_wd")
    members: dict[str, list[nn.Parameter]] = {name: [] for name in names}
    for name, parameter in method.named_parameters():
        if not parameter.requires_grad:
            continue
        decays = parameter.ndim > 1 and not name.endswith(".bias")
        embeds = ".patch_embed." in name
        members[names[embeds + 2 * (not decays)]].append(parameter)
    return [
        {
            "name": name,
            "params": members[name],
            "lr_scale": optimization.patch_embed_lr if name.startswith("patch_embed") else 1.0,
            "decays": not name.endswith("no_wd"),
        }
        for name in names
        if members[name]
    ]


def build_optimizer(method: Method, optimization: Optimization) -> Optimizer:
    """AdamW (betas 0.9 and 0.999, epsilon 1e-8) or LARS; `set_schedules` gives it rates before each step."""
    groups = parameter_groups(method, optimization)
    if optimization.optimizer == "lars":
        return LARS(groups, lr=0.0)
    # fused: one pass over memory, nine times as fast as torch's default on a CPU
    return AdamW(groups, lr=0.0, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, fused=True)


def set_schedules(optimizer: Optimizer, optimization: Optimization, time: Time) -> None:
    """Learning rate and weight decay of every group for the step to come."""
    lr, weight_decay = optimization.lr(time), optimization.weight_decay(time)
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]
        group["weight_decay"] = weight_decay if group["decays"] else 0.0


@torch.no_grad()
def clip_gradients(parameters: Iterable[Tensor], norm: float | None, *, each: bool) -> Tensor:
    """Scales gradients longer than `norm` down to it: g <- g min(1, norm / (||g|| + 1e-6)).

    Args:
        norm: None to measure only.
        each: each tensor by its own norm (DINO, Mugs), instead of all by their joint norm.

    Returns:
        () the joint norm before clipping.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        raise ValueError("no parameter has a gradient; call backward first")
    norms = torch.stack(list(torch._foreach_norm(gradients)))
    total: Tensor = torch.linalg.vector_norm(norms)
    if norm is not None:
        factors = (norm / ((norms if each else total.expand(len(norms))) + 1e-6)).clamp(max=1.0)
        torch._foreach_mul_(gradients, list(factors.unbind()))
    return total
