"""What fine-tuning takes from timm: augmentation, mixing of images and labels, averaging of weights."""

from collections.abc import Callable, Sequence
from typing import Any, cast

from PIL import Image
from timm.data.mixup import Mixup
from timm.data.transforms_factory import create_transform
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn

RAND_AUGMENT = "rand-m9-mstd0.5-inc1"


def augmentation(
    size: int, *, mean: Sequence[float], std: Sequence[float], rand_augment: bool, erase: float
) -> Callable[[Image.Image], Tensor]:
    """A random resized crop (bicubic) mirrored at even odds, RandAugment, normalised, and perhaps a box erased.

    Its numbers come from the global generators of Python, NumPy and torch.

    Args:
        erase: probability that a box is filled with N(0, 1) after normalisation.
    """
    made = create_transform(
        size,
        is_training=True,
        color_jitter=0.0,  # timm leaves it out beside RandAugment
        auto_augment=RAND_AUGMENT if rand_augment else None,
        interpolation="bicubic",
        mean=tuple(mean),
        std=tuple(std),
        re_prob=erase,
        re_mode="pixel",
    )
    return cast(Callable[[Image.Image], Tensor], made)


def mixing(classes: int, *, mixup: float, cutmix: float, smoothing: float) -> Callable[[Tensor, Tensor], Any]:
    """Mixup (arXiv:1710.09412) or CutMix (arXiv:1905.04899) of a whole batch, at even odds where both are on.

    Called with pixels (B, C, H, W), B even, and labels (B,): pixels, which it changes in place, and shares (B, K).

    Args:
        mixup, cutmix: alphas; 0 for none.
        smoothing: share of each label that is spread over all.
    """
    mix: Any = Mixup(  # type: ignore[no-untyped-call]
        mixup, cutmix, prob=1.0, switch_prob=0.5, label_smoothing=smoothing, num_classes=classes
    )
    mix.mixup_enabled = mixup > 0 or cutmix > 0
    return cast(Callable[[Tensor, Tensor], Any], mix)


def averaged(model: nn.Module, decay: float) -> Any:
    """An average of weights that follows the model: `update(model)` after each step, `module` is the average."""
    return ModelEmaV3(model, decay=decay)
