"""Choices about object detection and instance segmentation."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from polygrain.ranges import COUNT, NOT_NEGATIVE, PART, PIXELS, POSITIVE, check_ranges


@dataclass(frozen=True, kw_only=True)
class DetectionRecipe:
    """All that training a detector takes.

    Args:
        images_at_once: of the images of a step go through the detector, and BatchNorm sees them.
        short_sides: lengths to which the short side of a training image is brought, one of them at random.
        test_side: the same for test images. `longest`: no side gets longer.
        crop: half of the training images are cut at random first, as DETR does.
        jitter: all become squares of this side by large-scale jitter; `short_sides` and `longest` must be it too.
        drops: shares of the training after which the learning rate falls to a tenth.
        proposals: boxes that the first stage hands on; `samples`: of them train the second, in each image.
    """

    epochs: int
    images_per_step: int
    images_at_once: int
    learning_rate: float
    weight_decay: float
    layer_decay: float
    drop_path: float
    warmup_steps: int
    drops: tuple[float, ...]
    short_sides: tuple[int, ...]
    test_side: int
    longest: int
    crop: bool
    jitter: int | None
    channels: int
    hidden: int
    proposals: int
    samples: int


# iBOT, arXiv:2111.07832, and Mugs, arXiv:2203.14415: official `evaluation/object_detection` and `evaluation/detection`
_MUGS = DetectionRecipe(
    epochs=12,
    images_per_step=32,
    images_at_once=4,  # what each of their eight GPUs had
    learning_rate=2e-4,
    weight_decay=0.05,
    layer_decay=0.8,
    drop_path=0.1,
    warmup_steps=500,
    drops=(8 / 12, 11 / 12),
    short_sides=tuple(range(480, 801, 32)),
    test_side=800,
    longest=1333,
    crop=True,
    jitter=None,
    channels=256,
    hidden=1024,
    proposals=2000,
    samples=512,
)
PRESETS: dict[str, DetectionRecipe] = {
    "mugs_s": _MUGS,
    "ibot_b": dataclasses.replace(_MUGS, layer_decay=0.75, images_per_step=16, images_at_once=2),
    # ViTDet, arXiv:2203.16527, detectron2 `mask_rcnn_vitdet_b_100ep`, in 12 epochs instead of 100
    "lsj": dataclasses.replace(
        _MUGS,
        images_per_step=64,
        learning_rate=1e-4,
        weight_decay=0.1,
        layer_decay=0.7,
        warmup_steps=250,
        drops=(8 / 9, 26 / 27),
        short_sides=(1024,),
        test_side=1024,
        longest=1024,
        crop=False,
        jitter=1024,
    ),
    "quick": dataclasses.replace(
        _MUGS,
        images_per_step=4,
        learning_rate=1e-3,
        drop_path=0.0,
        warmup_steps=10,
        short_sides=(160, 176, 192),
        test_side=176,
        longest=256,
        crop=False,
        channels=64,
        hidden=256,
        proposals=200,
        samples=64,
    ),
}


@dataclass(frozen=True, kw_only=True)
class DetectSettings:
    """Object detection and instance segmentation: a detector fine-tuned on COCO annotations, COCO's AP.

    Args:
        detector: `mask` is Mask R-CNN; `cascade` is Cascade Mask R-CNN, what iBOT and Mugs report. Their figures do not
            compare.
        pyramid: of a ViT: `taps` brings four blocks to four resolutions (iBOT, Mugs), `last` the last one (ViTDet).
            Stages of ResNet and ConvNeXt are taken as they are.
        preset: `quick` is a cheap check on small images, and its AP is low; `mugs_s` and `ibot_b` are the papers'
            schedules, made for many GPUs; `lsj` is ViTDet's on squares of 1024 px, in 12 epochs, to go with `last`.
            Options that are not given are those of the preset.
        epochs: passes over the training images.
        steps: of the optimizer, instead of epochs.
        images_per_step: images in each.
        images_at_once: of them that go through the detector at once, their gradients are summed. At 800 px each takes 2
            GiB with ViT-S, 3 with ViT-B, and more as boxes get better. BatchNorm sees so many.
        learning_rate: of everything but the backbone.
        weight_decay: of matrices.
        layer_decay: the learning rate of each layer of the backbone is that of the next one times this.
        drop_path: stochastic depth of the backbone.
        test_side: length of the short side of test images.
        workers: processes that decode images; by default one less than the cores, at most 8.
        device: `auto` takes a GPU where there is one.
        out: file for the detections, as COCO's result files have them.
        seed: of everything drawn at random.
    """

    detector: Literal["mask", "cascade"] = "mask"
    pyramid: Literal["taps", "last"] = "taps"
    preset: Literal["quick", "mugs_s", "ibot_b", "lsj"] = "quick"
    epochs: int | None = None
    steps: int | None = None
    images_per_step: int | None = None
    images_at_once: int | None = None
    learning_rate: float | None = None
    weight_decay: float | None = None
    layer_decay: float | None = None
    drop_path: float | None = None
    test_side: int | None = None
    workers: int | None = None
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    out: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        kinds = {
            COUNT: "epochs steps images_per_step images_at_once",
            POSITIVE: "learning_rate",
            NOT_NEGATIVE: "weight_decay",
            PART: "layer_decay",
            PIXELS: "test_side",
        }
        check_ranges(self, kinds)
        if self.drop_path is not None and not 0 <= self.drop_path < 1:
            raise ValueError(f"drop_path is {self.drop_path}; it must be 0 or more and below 1")
        if self.epochs is not None and self.steps is not None:
            raise ValueError(f"epochs is {self.epochs} and steps {self.steps}; give one of them")
        if self.images_at_once is not None and self.images_at_once > (most := self.recipe().images_per_step):
            raise ValueError(f"images_at_once is {self.images_at_once}; a step has {most} images (images_per_step)")

    def recipe(self) -> DetectionRecipe:
        """The preset with what was chosen otherwise."""
        names = [field.name for field in dataclasses.fields(DetectionRecipe) if hasattr(self, field.name)]
        chosen = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        recipe = dataclasses.replace(PRESETS[self.preset], **chosen)
        at_once = min(
            recipe.images_at_once, recipe.images_per_step
        )  # a step of fewer images than the preset has at once
        return dataclasses.replace(recipe, images_at_once=at_once)

    def steps_for(self, images: int) -> int:
        """Steps of the optimizer; the last batch of an epoch is filled from the next one."""
        recipe = self.recipe()
        return self.steps or max(1, recipe.epochs * images // recipe.images_per_step)

    def of_protocol(self) -> dict[str, Any]:
        """All that decides the numbers, not how fast or where they are computed."""
        told = dataclasses.asdict(self.recipe())
        if self.steps is not None:
            told |= {"epochs": None, "steps": self.steps}
        return {"detector": self.detector, "pyramid": self.pyramid, "seed": self.seed, **told}
