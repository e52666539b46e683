"""All that the presets set, written by hand.

VICRegL: arXiv:2210.01571 and its official `segmentation/` (mmsegmentation's schedule for the ResNet). iBOT:
arXiv:2111.07832, `evaluation/semantic_segmentation`, learning rates as in `evaluation/README.md`. Mugs:
arXiv:2203.14415, the same for ViT-S. DINOv3: arXiv:2508.10104, `eval/segmentation`. quick is ours.
"""

import dataclasses
from typing import get_args, get_type_hints

import pytest

from polygrain.evaluate.settings.segmentation import SegmentFinetuneSettings, SegmentLinearSettings

IN_WINDOWS = {"window": 512, "stride": 341}
CROPS = {"streamed": True, "images_per_step": 16, "size": 512, "crop": 512}
ADAMW = {"optimizer": "adamw", "power": 1.0, "least_rate": 0.0, "warmup_steps": 1500, "output_stride": None}
CONVNEXT = {"levels": 4, "batch_norm": True, "dropout": 0.0, "learning_rates": (1e-4,), "weight_decay": 0.05}

LINEAR = {
    "vicregl_convnext_voc": {**CROPS, **ADAMW, **CONVNEXT, **IN_WINDOWS, "steps": 40_000},
    "vicregl_convnext_ade": {**CROPS, **ADAMW, **CONVNEXT, **IN_WINDOWS, "steps": 160_000},
    "vicregl_resnet": {
        **CROPS, "levels": 1, "output_stride": 8, "batch_norm": True, "dropout": 0.1, "optimizer": "sgd",
        "learning_rates": (0.01,), "weight_decay": 5e-4, "power": 0.9, "least_rate": 1e-4, "warmup_steps": 0,
        "steps": 40_000, "window": 0,
    },
    "ibot": {
        **CROPS, **ADAMW, **IN_WINDOWS, "levels": 4, "batch_norm": False, "dropout": 0.0, "learning_rates": (8e-4,),
        "weight_decay": 0.05, "steps": 160_000,
    },
    "dinov3": {
        **CROPS, **ADAMW, **IN_WINDOWS, "levels": 1, "batch_norm": True, "dropout": 0.1, "learning_rates": (1e-3,),
        "weight_decay": 1e-3, "steps": 40_000,
    },
    "quick": {
        "streamed": False, "levels": 1, "output_stride": None, "batch_norm": True, "optimizer": "adamw",
        "learning_rates": (1e-3, 3e-3, 1e-2, 3e-2), "weight_decay": 1e-3, "steps": 500, "images_per_step": 16,
        "size": None, "window": 0,
    },
}  # fmt: skip
SMALL = {
    "channels": 384, "learning_rate": 3e-5, "layer_decay": 0.9, "weight_decay": 0.05, "drop_path": 0.1, "dropout": 0.1,
    "warmup_steps": 1500, "steps": 160_000, "images_per_step": 16, "size": 512, "crop": 512, **IN_WINDOWS,
}  # fmt: skip
FINETUNE = {
    "mugs": SMALL,
    "ibot_base": SMALL | {"channels": 768, "learning_rate": 8e-5, "layer_decay": 0.65},
    "quick": {
        "channels": 128, "learning_rate": 5e-4, "layer_decay": 0.9, "weight_decay": 0.05, "drop_path": 0.1,
        "dropout": 0.1, "warmup_steps": 1500, "steps": 500, "images_per_step": 8, "size": None, "crop": None,
        "window": 0,
    },
}  # fmt: skip


@pytest.mark.parametrize("preset", LINEAR)
def test_linear_presets_hold_the_published_values(preset):
    assert SegmentLinearSettings(preset=preset).recipe().told() == LINEAR[preset]


@pytest.mark.parametrize("preset", FINETUNE)
def test_presets_of_fine_tuning_hold_the_published_values(preset):
    recipe = dataclasses.asdict(SegmentFinetuneSettings(preset=preset).recipe())
    assert {name: value for name, value in recipe.items() if name != "stride" or recipe["window"]} == FINETUNE[preset]


@pytest.mark.parametrize(("settings", "table"), [(SegmentLinearSettings, LINEAR), (SegmentFinetuneSettings, FINETUNE)])
def test_no_preset_is_without_its_values(settings, table):
    assert set(get_args(get_type_hints(settings)["preset"])) == set(table)
