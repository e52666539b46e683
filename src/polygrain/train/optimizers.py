"""How parameters move: LARS, parameter groups, schedules per group, clipping."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from polygrain.methods.base import Method
from polygrain.methods.optimization import Optimization
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
                    _descend(self.state, members, trusted(members, gradients, group) if scaled else gradients, group)
        return loss


def trusted(parameters: list[Tensor], gradients: list[Tensor], group: Mapping[str, Any]) -> list[Tensor]:
    """Gradients with decay, scaled to trust times the norm of their parameters."""
    decayed = list(torch._foreach_add(gradients, parameters, alpha=group["weight_decay"]))
    lengths = torch.stack(list(torch._foreach_norm(parameters)))
    steps = torch.stack(list(torch._foreach_norm(decayed)))
    ratios = torch.where((lengths > 0) & (steps > 0), group["trust"] * lengths / steps, 1.0)
    torch._foreach_mul_(decayed, list(ratios.unbind()))
    return decayed


class LARC(Optimizer):
    """SGD with momentum after each gradient was scaled to the length of its weights, as SwAV trains with.

    Every tensor with a norm above 0 takes g <- (g + weight_decay p) trust ||p|| / (||g|| + weight_decay ||p|| + 1e-8),
    whatever its dimensions; one of norm 0 (a fresh bias) takes its raw gradient without decay. Then
    v <- momentum v + g and p <- p - lr v (Apex's LARC with clip=False; LARS, arXiv:1708.03888).
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
            if parameters:
                gradients = [cast(Tensor, p.grad) for p in parameters]
                _descend(self.state, parameters, adapted(parameters, gradients, group), group)
        return loss


def adapted(parameters: list[Tensor], gradients: list[Tensor], group: Mapping[str, Any]) -> list[Tensor]:
    """Gradients as LARC scales them."""
    decay = group["weight_decay"]
    lengths = torch.stack(list(torch._foreach_norm(parameters)))
    steps = torch.stack(list(torch._foreach_norm(gradients)))
    moves = (lengths > 0) & (steps > 0)
    ratios = torch.where(moves, group["trust"] * lengths / (steps + decay * lengths + 1e-8), 1.0)
    decays = torch.where(moves, decay, 0.0)
    scaled = torch._foreach_mul(parameters, list(decays.unbind()))
    torch._foreach_add_(scaled, gradients)
    torch._foreach_mul_(scaled, list(ratios.unbind()))
    return list(scaled)


def _descend(state: Any, parameters: list[Tensor], gradients: list[Tensor], group: Mapping[str, Any]) -> None:
    """v <- momentum v + g; p <- p - lr v."""
    for parameter in parameters:
        if "momentum_buffer" not in state[parameter]:
            state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    velocities = [state[parameter]["momentum_buffer"] for parameter in parameters]
    torch._foreach_mul_(velocities, group["momentum"])
    torch._foreach_add_(velocities, gradients)
    torch._foreach_add_(parameters, velocities, alpha=-group["lr"])


def parameter_groups(method: nn.Module, optimization: Optimization) -> list[dict[str, Any]]:
    """Trainable parameters, those that are treated alike together.

    A parameter decays if it has more than one dimension and is not called `.bias` (`no_wd` holds those that do not);
    position codes, class tokens and the (K, 1) gains of prototypes therefore decay (DINO, Mugs). A group holds
    `lr_scale`, a factor on the learning rate, `constant_lr` or None, and `decays`.
    """
    kinds = ("normal", "patch_embed", "constant")
    members: dict[str, list[nn.Parameter]] = {f"{kind}{suffix}": [] for suffix in ("", "_no_wd") for kind in kinds}
    for name, parameter in method.named_parameters():
        if not parameter.requires_grad:
            continue
        constant = optimization.constant_lr is not None and optimization.constant_lr_of in name
        kind = "constant" if constant else "patch_embed" if ".patch_embed." in name else "normal"
        matrix = parameter.ndim > 1 and not name.endswith(".bias")
        members[kind if matrix else f"{kind}_no_wd"].append(parameter)
    return [
        {
            "name": name.removeprefix("normal_"),
            "params": parameters,
            "lr_scale": (optimization.patch_embed_lr if name.startswith("patch_embed") else 1.0)
            * (optimization.one_dimension_lr if name.endswith("no_wd") else 1.0),
            "constant_lr": optimization.constant_lr if name.startswith("constant") else None,
            "decays": optimization.decay_all or not name.endswith("no_wd"),
        }
        for name, parameters in members.items()
        if parameters
    ]


def build_optimizer(method: Method, optimization: Optimization) -> Optimizer:
    """AdamW (epsilon 1e-8), LARS, LARC or SGD with momentum 0.9; `set_schedules` gives it rates before each step."""
    groups = parameter_groups(method, optimization)
    if optimization.optimizer == "lars":
        return LARS(groups, lr=0.0)
    if optimization.optimizer == "larc":
        return LARC(groups, lr=0.0)
    if optimization.optimizer == "sgd":
        return SGD(groups, lr=0.0, momentum=0.9)
    # fused: one pass over memory, nine times as fast as torch's default on a CPU
    return AdamW(groups, lr=0.0, betas=optimization.betas, eps=1e-8, weight_decay=0.0, fused=True)


def set_schedules(optimizer: Optimizer, optimization: Optimization, time: Time) -> None:
    """Learning rate and weight decay of every group for the step to come."""
    lr, weight_decay = optimization.lr(time), optimization.weight_decay(time)
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"] if group["constant_lr"] is None else group["constant_lr"]
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
