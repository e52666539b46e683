"""Mixup and CutMix: images blended, and their labels with them."""

import torch
from torch import Tensor, nn
from torchvision.transforms import v2


class LabelMixing(nn.Module):
    """Each batch takes mixup (arXiv:1710.09412) or CutMix (arXiv:1905.04899), at even odds where both are on.

    torchvision's, not timm's as DeiT has: those draw from NumPy's global generator, which a resumed run does not
    restore. Either blends a batch with itself in another order and one share for all; which order does not matter.

    Args:
        mixup: alpha of the Beta(alpha, alpha) that the share is drawn from; 0 for no mixup.
        cutmix: likewise.
        classes: number of labels.
    """

    def __init__(self, *, mixup: float, cutmix: float, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.ways = nn.ModuleList()
        with torch.device("cpu"):  # where shares are drawn, wherever the images are
            if mixup > 0:
                self.ways.append(v2.MixUp(alpha=mixup, num_classes=classes))
            if cutmix > 0:
                self.ways.append(v2.CutMix(alpha=cutmix, num_classes=classes))

    def forward(self, pixels: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) and (B,) to pixels and shares of the labels (B, K); in evaluation mode nothing is blended."""
        if not self.training or not self.ways:
            return pixels, nn.functional.one_hot(labels, self.classes).to(pixels.dtype)
        way = self.ways[int(torch.randint(len(self.ways), ()))]
        mixed, shares = way(pixels, labels)
        return mixed, shares
