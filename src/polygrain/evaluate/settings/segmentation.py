"""Choices about semantic segmentation."""

import dataclasses
from dataclasses import dataclass
from typing import Literal

from polygrain.evaluate.settings.segmentation_recipes import (
    FINETUNE_PRESETS,
    LINEAR_PRESETS,
    ONLY_STREAMED,
    FinetuneRecipe,
    LinearRecipe,
)
from polygrain.ranges import COUNT, NOT_NEGATIVE, NUMBER, PIXELS, POSITIVE, check_ranges

LinearPreset = Literal["quick", "vicregl_convnext_voc", "vicregl_convnext_ade", "vicregl_resnet", "ibot", "dinov3"]


@dataclass(frozen=True, kw_only=True)
class SegmentationSettings:
    """How images and masks are read, for every protocol of segmentation.

    Args:
        size: length to which the short side of each image is brought before the backbone sees it; the answer is
            enlarged to the size of the mask and judged there. A cell of the backbone's map at least; by default that of
            the preset; where it has none, 32 cells and at most 512.
        classes: number of ids in the masks; by default as many as classes.json names, or the highest id says.
        ignore_index: id of pixels that neither train nor count; by default that of classes.json, or 255.
        reduce_zero_label: id 0 does not count either, and ids 1, 2 ... are classes 0, 1 ... (ADE20K).
        workers: processes that decode images; by default one less than the cores, at most 8.
        device: `auto` takes a GPU where there is one.
        seed: of everything drawn at random.
    """

    size: int | None = None
    classes: int | None = None
    ignore_index: int | None = None
    reduce_zero_label: bool = False
    workers: int | None = None
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        kinds = {
            PIXELS: "size crop",
            COUNT: "levels steps images_per_step bank channels",
            POSITIVE: "learning_rates learning_rate",
            NOT_NEGATIVE: "weight_decay dropout",
            NUMBER: "workers window ignore_index warmup_steps seed",
        }
        check_ranges(
            self, {kind: " ".join(n for n in names.split() if hasattr(self, n)) for kind, names in kinds.items()}
        )
        if self.classes is not None and not 2 <= self.classes <= 65535:
            raise ValueError(f"classes is {self.classes}; it must be 2 to 65,535")


@dataclass(frozen=True, kw_only=True)
class SegmentLinearSettings(SegmentationSettings):
    """Linear segmentation: BatchNorm and a 1x1 convolution on the frozen patches or maps.

    Args:
        preset: `quick` trains on features of whole images, computed once, by the shares of the classes in each patch;
            the others on random crops, pixel by pixel, as VICRegL (ConvNeXt on Pascal VOC or ADE20K; dilated ResNet),
            iBOT or DINOv3 do. Options that are not given are those of the preset.
        levels: last blocks or stages whose maps are put side by side, brought to the size of the finest; a ViT's are
            normed each, maps of the other families are as they come.
        output_stride: 8 or 16, of a ResNet: its last stages are dilated where they would reduce further.
        batch_norm: before the convolution.
        dropout: of whole channels, before the convolution.
        crop: side of the square random crops.
        steps: of the optimizer.
        images_per_step: images or crops in each.
        learning_rates: one head is trained at each; of several, the one that is best on held-out training images is
            tested.
        weight_decay: of all weights of the head.
        warmup_steps: at most a tenth of the steps.
        window: side of the windows in which an image is segmented; 0 for the whole image at once.
        stride: from one window to the next.
        held_out: share of the training images that chooses the learning rate and trains nothing; unused with one rate.
    """

    preset: LinearPreset = "quick"
    levels: int | None = None
    output_stride: int | None = None
    batch_norm: bool | None = None
    dropout: float | None = None
    crop: int | None = None
    steps: int | None = None
    images_per_step: int | None = None
    learning_rates: tuple[float, ...] | None = None
    weight_decay: float | None = None
    warmup_steps: int | None = None
    window: int | None = None
    stride: int | None = None
    held_out: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.held_out < 1:
            raise ValueError(f"held_out is {self.held_out}; it must lie between 0 and 1, for example 0.1")
        if self.learning_rates == ():
            raise ValueError("learning_rates are empty; give one or more, each above 0")
        if self.dropout is not None and self.dropout >= 1:
            raise ValueError(f"dropout is {self.dropout}; it must be below 1")
        if self.output_stride not in (None, 8, 16):
            raise ValueError(f"output_stride is {self.output_stride}; it must be 8 or 16")
        recipe = self.recipe()
        check_window(recipe.window, recipe.stride)
        for name in ONLY_STREAMED:
            if not recipe.streamed and getattr(self, name) is not None:
                raise ValueError(
                    f"{name} is {getattr(self, name)}, and preset quick, which trains on features of whole images, "
                    "has none; choose another preset"
                )

    def recipe(self) -> LinearRecipe:
        """The preset with what was chosen otherwise."""
        names = [field.name for field in dataclasses.fields(LinearRecipe) if hasattr(self, field.name)]
        chosen = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return dataclasses.replace(LINEAR_PRESETS[self.preset], **chosen)


def check_window(window: int, stride: int) -> None:
    """Whether windows leave no gap.

    Raises:
        ValueError: when they do.
    """
    if window and not 1 <= stride <= window:
        raise ValueError(f"stride is {stride}; with windows of {window} px it must be 1 to {window}")


@dataclass(frozen=True, kw_only=True)
class SegmentKnnSettings(SegmentationSettings):
    """Segmentation by the nearest training patches, without training.

    Args:
        k: numbers of neighbours, all evaluated in one pass; the one that is best on held-out training images is told.
        distance: `cosine` of two patches, or `l2` between them as they are.
        bank: at most so many training patches are kept, equally many of each image, drawn at random.
        held_out: share of the training images that chooses k; they are in the bank for the test.
    """

    k: tuple[int, ...] = (1, 3, 10, 30)
    distance: Literal["cosine", "l2"] = "cosine"
    bank: int = 100_000
    held_out: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.k or min(self.k) < 1:
            raise ValueError(f"k is {list(self.k)}; give one or more numbers of neighbours, each 1 or more")
        if not 0 < self.held_out < 1:
            raise ValueError(f"held_out is {self.held_out}; it must lie between 0 and 1, for example 0.1")


@dataclass(frozen=True, kw_only=True)
class SegmentFinetuneSettings(SegmentationSettings):
    """UPerNet on the four-level pyramid of the backbone, all of it trained.

    Args:
        preset: `mugs` is the recipe of Mugs and iBOT for ViT-S on ADE20K, `ibot_base` that of iBOT for ViT-B; `quick` a
            short run of ours. Options that are not given are those of the preset.
        channels: of the decoder.
        learning_rate: of the decoder and the last layer (AdamW); it falls in a line to 0.
        layer_decay: each layer of the backbone learns by so much more slowly than the next one.
        weight_decay: of all but biases and norms.
        drop_path: share of the residual branches left out in training.
        dropout: of whole channels, before the last convolution.
        crop: side of the square random crops; quick takes the size.
        steps: of the optimizer.
        images_per_step: crops in each.
        warmup_steps: at most a tenth of the steps.
        window: side of the windows in which an image is segmented; 0 for the whole image at once.
        stride: from one window to the next.
    """

    preset: Literal["quick", "mugs", "ibot_base"] = "quick"
    channels: int | None = None
    learning_rate: float | None = None
    layer_decay: float | None = None
    weight_decay: float | None = None
    drop_path: float | None = None
    dropout: float | None = None
    crop: int | None = None
    steps: int | None = None
    images_per_step: int | None = None
    warmup_steps: int | None = None
    window: int | None = None
    stride: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("drop_path", "dropout"):
            if (share := getattr(self, name)) is not None and not 0 <= share < 1:
                raise ValueError(f"{name} is {share}; it must be 0 or more and below 1")
        if self.layer_decay is not None and not 0 < self.layer_decay <= 1:
            raise ValueError(f"layer_decay is {self.layer_decay}; it must be above 0 and at most 1")
        if self.images_per_step == 1:
            raise ValueError("images_per_step is 1, and BatchNorm over one cell needs 2 or more")
        recipe = self.recipe()
        check_window(recipe.window, recipe.stride)

    def recipe(self) -> FinetuneRecipe:
        """The preset with what was chosen otherwise."""
        names = [field.name for field in dataclasses.fields(FinetuneRecipe)]
        chosen = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return dataclasses.replace(FINETUNE_PRESETS[self.preset], **chosen)
