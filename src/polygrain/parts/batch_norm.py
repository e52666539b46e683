"""BatchNorm whose statistics are those of the batch over all ranks."""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from polygrain.distributed import sum_with_gradient, world_size


class SyncedBatchNorm(_BatchNorm):
    """As nn.SyncBatchNorm, on any device: torch's own refuses the CPU. In one process it is plain BatchNorm."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected at least 2 dimensions, got {input.dim()}")

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or world_size() == 1:
            return super().forward(input)
        axes = [axis for axis in range(input.dim()) if axis != 1]
        rows = input.to(torch.promote_types(input.dtype, torch.float32))
        count = rows.numel() / rows.shape[1]
        local = torch.cat([rows.sum(axes), rows.square().sum(axes), rows.new_tensor([count])])
        total = sum_with_gradient(local)
        count = float(total[-1].detach())
        mean, square = (total[:-1] / count).chunk(2)
        variance = (square - mean.square()).clamp_min(0)
        self._track(mean.detach(), variance.detach() * (count / max(1.0, count - 1)))
        shape = [1, -1, *[1] * (input.dim() - 2)]
        normal = (rows - mean.view(shape)) * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            normal = normal * self.weight.view(shape) + self.bias.view(shape)
        return normal.to(input.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, unbiased: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        momentum = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(unbiased, momentum)


def synchronise_batch_norm(module: nn.Module) -> None:
    """Replaces every BatchNorm below `module`; parameters and buffers stay the same tensors under the same names.

    Parts marked as `statistics_by_rank` stay as they are (shuffled batch norm).

    Raises:
        ValueError: at a kind of BatchNorm that does more than normalise.
    """
    if getattr(module, "statistics_by_rank", False):
        return
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d) and type(child) in (nn.BatchNorm1d, nn.BatchNorm2d):
            synced = SyncedBatchNorm(
                child.num_features, child.eps, child.momentum, child.affine, child.track_running_stats
            )
            for table in ("_parameters", "_buffers"):
                getattr(synced, table).update(getattr(child, table))
            setattr(module, name, synced.train(child.training))
        elif isinstance(child, _BatchNorm) and not isinstance(child, SyncedBatchNorm):
            raise ValueError(f"{type(child).__name__} cannot be synchronised over several devices; use one device")
        else:
            synchronise_batch_norm(child)
