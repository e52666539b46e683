import dataclasses
import math

import pytest

from polygrain.evaluate.settings.detection import DetectSettings


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"layer_decay": 0.0}, "layer_decay is 0.0; it must be above 0 and at most 1"),
        ({"drop_path": 1.0}, "drop_path is 1.0; it must be 0 or more and below 1"),
        ({"epochs": 1, "steps": 2}, "epochs is 1 and steps 2; give one of them"),
        ({"images_at_once": 0}, "images_at_once is 0; it must be"),
        ({"images_at_once": 5}, "images_at_once is 5; a step has 4 images"),
        ({"learning_rate": math.nan}, "learning_rate is nan; it must be above 0"),
    ],
)
def test_settings_out_of_range_are_refused(given, told):
    with pytest.raises(ValueError, match=told):
        DetectSettings(**given)


def test_a_step_of_fewer_images_takes_them_at_once():
    assert DetectSettings(preset="mugs_s", images_per_step=3).recipe().images_at_once == 3


# iBOT's and Mugs' official configurations and detectron2's `mask_rcnn_vitdet_b_100ep`, copied by hand
PUBLISHED = {
    "mugs_s": {
        "epochs": 12,
        "images_per_step": 8 * 4,
        "images_at_once": 4,
        "learning_rate": 2e-4,
        "weight_decay": 0.05,
        "layer_decay": 0.8,
        "drop_path": 0.1,
        "warmup_steps": 500,
        "drops": (8 / 12, 11 / 12),
        "short_sides": (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800),
        "test_side": 800,
        "longest": 1333,
        "crop": True,
        "jitter": None,
        "channels": 256,
        "hidden": 1024,
        "proposals": 2000,
        "samples": 512,
    },
    "lsj": {
        "epochs": 12,
        "images_per_step": 64,
        "images_at_once": 4,
        "learning_rate": 1e-4,
        "weight_decay": 0.1,
        "layer_decay": 0.7,
        "drop_path": 0.1,
        "warmup_steps": 250,
        "drops": pytest.approx((163_889 / 184_375, 177_546 / 184_375), abs=1e-5),
        "short_sides": (1024,),
        "test_side": 1024,
        "longest": 1024,
        "crop": False,
        "jitter": 1024,
        "channels": 256,
        "hidden": 1024,
        "proposals": 2000,
        "samples": 512,
    },
}
PUBLISHED["ibot_b"] = PUBLISHED["mugs_s"] | {"images_per_step": 8 * 2, "images_at_once": 2, "layer_decay": 0.75}


@pytest.mark.parametrize("preset", PUBLISHED)
def test_every_number_of_the_papers_schedules_is_the_published_one(preset):
    assert dataclasses.asdict(DetectSettings(preset=preset).recipe()) == PUBLISHED[preset]


def test_twelve_epochs_of_coco_have_as_many_steps_as_images_allow():
    assert DetectSettings(preset="mugs_s").steps_for(117_266) == 12 * 117_266 // 32
