"""Projectors, predictors and prototypes."""

import itertools
from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Activation = Literal["gelu", "relu"]
Norm = Literal["batch", "layer"]
LastNorm = Literal["plain", "gain"]
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU}
NORMS: dict[str, Callable[[int], nn.Module]] = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm}


def mlp(
    widths: Sequence[int],
    *,
    activation: Activation,
    norm: Norm | None = None,
    bias: bool = True,
    last_bias: bool = True,
    last_norm: bool | LastNorm = False,
) -> nn.Sequential:
    """Linear layers of the given widths with norm and activation between them; takes (..., widths[0]).

    The modules are numbered as in the authors' code (Linear, norm if any, activation, ...), so that keys of
    released checkpoints name the same layers.

    Args:
        last_norm: BatchNorm after the last layer: "plain", without gain and offset (SimSiam, MoCo-v3), which True
            is too, or with a "gain" and no offset (SimCLR).
    """
    layers: list[nn.Module] = []
    pairs = list(itertools.pairwise(widths))
    for narrow, wide in pairs[:-1]:
        layers.append(nn.Linear(narrow, wide, bias=bias))
        if norm is not None:
            layers.append(NORMS[norm](wide))
        layers.append(ACTIVATIONS[activation]())
    layers.append(nn.Linear(*pairs[-1], bias=last_bias))
    if last_norm:
        layers.append(nn.BatchNorm1d(widths[-1], affine=last_norm == "gain"))
        if last_norm == "gain":
            layers[-1].bias.requires_grad_(False)  # stays 0
    return nn.Sequential(*layers)


@torch.no_grad()
def normal_init(module: nn.Module, std: float = 0.01) -> None:
    """Weights of every Linear from a normal of this std, biases 0 (SimCLR)."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=std)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


@torch.no_grad()
def truncated_normal_init(module: nn.Module, std: float = 0.02) -> None:
    """Weights of every Linear from a normal of this std cut at +-2, biases 0 (DINO, Mugs)."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=std)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class Prototypes(nn.Module):
    """Weight-normalised linear layer without bias: row m is weight_g[m] weight_v[m] / ||weight_v[m]||.

    Args:
        fixed_norm: keep every gain at 1 (DINO's and Mugs' `norm_last_layer`).
    """

    def __init__(self, dim: int, count: int, *, fixed_norm: bool) -> None:
        super().__init__()
        self.weight_v = nn.Parameter(nn.Linear(dim, count, bias=False).weight.detach().clone())  # (K, D)
        self.weight_g = nn.Parameter(torch.ones(count, 1), requires_grad=not fixed_norm)  # (K, 1)

    def forward(self, vectors: Tensor) -> Tensor:
        """(..., D) to logits (..., K)."""
        lengths: Tensor = torch.linalg.vector_norm(self.weight_v, dim=1, keepdim=True)  # (K, 1)
        return F.linear(vectors, self.weight_v) * (self.weight_g / lengths).T  # far fewer logits than weights
