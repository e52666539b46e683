"""Choices about fine-tuning, and those of the papers."""

import dataclasses
from dataclasses import dataclass, replace
from typing import Any, Literal

from polygrain.evaluate.settings.base import AspectSettings
from polygrain.evaluate.settings.choices import check_held_out, check_one_of, check_subset, check_warmup


@dataclass(frozen=True, kw_only=True)
class FinetuneRecipe:
    """One way to fine-tune.

    Args:
        learning_rate: of the last layer, per 256 images; likewise `head_learning_rate`, None for the same.
        min_lr: of the last layer at the end, whatever the batch; above the peak the learning rate rises.
        schedule: "cosine" of every step, or "cosine_by_epoch"; "deit": timm's cosine by epoch, which runs on under the
            warm-up, one epoch late, as DeiT's script steps it; "steps": times 0.2 after 60 % and 80 % of the epochs.
        layer_decay: factor on the learning rate from each layer to the one before it; 1 for none.
        decay_positions: position codes and class tokens get weight decay too.
        mixup, cutmix: alphas; 0 for none.
        rand_augment: timm's "rand-m9-mstd0.5-inc1" after the crop.
        erase: probability of random erasing with noise.
        repeats: how often each image is in an epoch, with crops of its own; the epoch stays as long.
        head: "mlp" has a hidden layer of 2,048 with GELU.
        head_scale: factor on the first weights of the head.
        warm_start: the linear head begins as a logistic regression on the frozen features.
        share: of the training images of each class, unless the settings say so.
    """

    epochs: int
    train_batch_size: int
    learning_rate: float
    head_learning_rate: float | None = None
    optimizer: Literal["adamw", "sgd"] = "adamw"
    schedule: Literal["cosine", "cosine_by_epoch", "deit", "steps"] = "cosine"
    min_lr: float = 1e-6
    warmup_epochs: int = 0
    warmup_lr: float = 0.0
    weight_decay: float = 0.05
    decay_positions: bool = False
    layer_decay: float = 1.0
    drop_path: float = 0.1
    mixup: float = 0.8
    cutmix: float = 1.0
    smoothing: float = 0.1
    rand_augment: bool = True
    erase: float = 0.25
    repeats: int = 1
    ema: float | None = None
    head: Literal["linear", "mlp"] = "linear"
    head_scale: float = 1.0
    warm_start: bool = False
    share: float | None = None

    @property
    def rising(self) -> int:
        """Epochs before the one that has the peak."""
        late = self.schedule == "deit" and self.warmup_epochs > 0
        return self.warmup_epochs + late


_MUGS = FinetuneRecipe(
    epochs=200,
    train_batch_size=1024,
    learning_rate=3e-4,  # 1.2e-3 at 1,024 images
    warmup_epochs=20,
    layer_decay=0.55,
    head_scale=0.001,
)
_DEIT = FinetuneRecipe(
    epochs=1000,
    train_batch_size=768,
    learning_rate=1.5e-6,  # 3e-6 per 512
    schedule="deit",
    min_lr=1e-5,
    warmup_epochs=5,
    warmup_lr=1e-6,
    decay_positions=True,
    erase=0.1,
    repeats=3,
)
_SEMI = replace(_DEIT, train_batch_size=512, learning_rate=2.5e-6, erase=0.25, head="mlp", share=0.01)
_RESNET_SEMI = FinetuneRecipe(
    epochs=20,
    train_batch_size=256,
    learning_rate=0.03,
    head_learning_rate=0.08,
    optimizer="sgd",
    schedule="cosine_by_epoch",
    min_lr=0.0,
    weight_decay=0.0,
    drop_path=0.0,
    mixup=0.0,
    cutmix=0.0,
    smoothing=0.0,
    rand_augment=False,
    erase=0.0,
    share=0.01,
)

PRESETS: dict[str, FinetuneRecipe] = {
    # cheap, and nobody's protocol
    "quick": FinetuneRecipe(
        epochs=10,
        train_batch_size=32,
        learning_rate=2e-3,
        warmup_epochs=1,
        layer_decay=0.75,
        mixup=0.0,
        cutmix=0.0,
        rand_augment=False,
        erase=0.0,
        warm_start=True,
    ),
    # Mugs, arXiv:2203.14415: full fine-tuning on ImageNet, in the lineage of BEiT
    "mugs_s": _MUGS,
    "mugs_b": replace(_MUGS, epochs=100, drop_path=0.2),
    "mugs_l": replace(
        _MUGS,
        epochs=50,
        train_batch_size=512,
        learning_rate=4e-4,  # 8e-4 at 512 images
        warmup_epochs=5,
        layer_decay=0.75,
        drop_path=0.3,
    ),
    # Mugs: semi-supervised; the least learning rate, 1e-5, lies above the peak of the 1 % run, so that rates rise
    "mugs_semi_1": _SEMI,
    "mugs_semi_10": replace(_SEMI, train_batch_size=1024, share=0.1),
    # VICReg, arXiv:2105.04906, README, and SwAV, arXiv:2006.09882, `eval_semisup.py`: ResNet-50
    "vicreg_semi_1": _RESNET_SEMI,
    "vicreg_semi_10": replace(_RESNET_SEMI, learning_rate=0.01, head_learning_rate=0.1, share=0.1),
    "swav_semi_1": replace(_RESNET_SEMI, learning_rate=0.02, head_learning_rate=5.0, schedule="steps"),
    "swav_semi_10": replace(_RESNET_SEMI, learning_rate=0.01, head_learning_rate=0.2, schedule="steps", share=0.1),
    # Mugs: transfer, in the lineage of DeiT
    "cifar10_s": _DEIT,
    "cifar10_b": replace(_DEIT, learning_rate=3.75e-6),
    "cifar100_s": replace(_DEIT, learning_rate=3.75e-6, weight_decay=0.02),
    "cifar100_b": replace(_DEIT, learning_rate=3.75e-6),
    "inat18_s": replace(_DEIT, epochs=360, learning_rate=1.5e-5),
    "inat18_b": replace(_DEIT, epochs=360, learning_rate=7.5e-6),
    "inat19_s": replace(_DEIT, epochs=360, learning_rate=3.75e-5),
    "inat19_b": replace(_DEIT, epochs=360, learning_rate=1.5e-5),
    "flowers_s": replace(_DEIT, learning_rate=3.75e-5),
    "flowers_b": replace(_DEIT, learning_rate=3.75e-5),
    "cars_s": replace(_DEIT, learning_rate=7.5e-5),
    "cars_b": replace(_DEIT, learning_rate=7.5e-5, drop_path=0.3),
}
CHANGEABLE = (
    "epochs", "warmup_epochs", "train_batch_size", "learning_rate", "layer_decay", "drop_path", "mixup", "cutmix",
    "ema", "warm_start",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class FinetuneSettings(AspectSettings):
    """Fine-tuning of the whole backbone with a fresh classifier, on all labels or a part of them.

    Args:
        preset: whose values are used where nothing is given: `quick` is cheap and nobody's protocol; mugs_s, mugs_b,
            mugs_l; with few labels mugs_semi_1, mugs_semi_10, vicreg_semi_1, vicreg_semi_10, swav_semi_1,
            swav_semi_10; transfer cifar10_s, cifar10_b, cifar100_s, cifar100_b, inat18_s, inat18_b, inat19_s,
            inat19_b, flowers_s, flowers_b, cars_s, cars_b.
        epochs: passes over the training images.
        warmup_epochs: of them over which the learning rate rises; 0 for none.
        train_batch_size: images per step, as far as there are so many; `batch_size` of them at once, so that memory
            does not bound it. With batch norm in the backbone that number decides the result.
        learning_rate: of the last layer, per 256 images.
        layer_decay: factor on the learning rate from each layer to the one before it.
        drop_path: of the last block; earlier blocks drop less.
        mixup: alpha; 0 for none.
        cutmix: alpha; 0 for none.
        warm_start: the classifier begins as a logistic regression on the frozen features; of the presets quick does.
        ema: decay of an average of the weights, which is tested in their place; none by default.
        share: of the training images of each class that is used, one at least; by default the preset's.
        list: file that names the training images to use, one to a line, such as SimCLR's lists for ImageNet.
        held_out: share of those images that chooses the epoch and trains nothing.
        look_every_epochs: how often held-out and test images are looked at.
        out: folder for the fine-tuned backbone and its classifier.
    """

    preset: str = "quick"
    epochs: int | None = None
    warmup_epochs: int | None = None
    train_batch_size: int | None = None
    learning_rate: float | None = None
    layer_decay: float | None = None
    drop_path: float | None = None
    mixup: float | None = None
    cutmix: float | None = None
    warm_start: bool | None = None
    ema: float | None = None
    share: float | None = None
    list: str | None = None
    held_out: float = 0.1
    look_every_epochs: int = 1
    out: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_one_of("preset", self.preset, PRESETS)
        check_subset(self.share, self.list)
        check_held_out(self.held_out)
        recipe = self.recipe()
        for name, value in (("epochs", recipe.epochs), ("look_every_epochs", self.look_every_epochs)):
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be 1 or more")
        check_warmup(self.preset, recipe.epochs, recipe.rising)
        if recipe.train_batch_size < 2:
            raise ValueError(f"train_batch_size is {recipe.train_batch_size}; it must be 2 or more")
        if not recipe.learning_rate > 0:
            raise ValueError(f"learning_rate is {recipe.learning_rate}; it must be above 0")
        if not 0 < recipe.layer_decay <= 1:
            raise ValueError(f"layer_decay is {recipe.layer_decay}; it must be above 0 and at most 1")
        for name in ("drop_path", "ema"):
            share = getattr(recipe, name)
            if share is not None and not 0 <= share < 1:
                raise ValueError(f"{name} is {share}; it must be 0 or more and below 1")
        if recipe.warm_start and recipe.head == "mlp":
            raise ValueError(f"{self.preset} has a hidden layer in its head, which cannot be warm; drop warm_start")
        for name in ("mixup", "cutmix"):
            if getattr(recipe, name) < 0:
                raise ValueError(f"{name} is {getattr(recipe, name)}; it must be 0 or more")

    def recipe(self) -> FinetuneRecipe:
        """The preset with what was given besides."""
        given = {name: getattr(self, name) for name in CHANGEABLE if getattr(self, name) is not None}
        share = None if self.list is not None else self.share or PRESETS[self.preset].share
        return replace(PRESETS[self.preset], **given, share=share)

    def of_protocol(self) -> dict[str, Any]:
        left_out = ("share", "list", "out")
        settings = {name: value for name, value in super().of_protocol().items() if name not in left_out}
        return settings | dataclasses.asdict(self.recipe())
