"""The presets of papers, against tables copied by hand from the papers and their scripts."""

import pytest

from polygrain.evaluate.settings.finetune import PRESETS as FINETUNE
from polygrain.evaluate.settings.heads import PRESETS as LINEAR

# Mugs' `eval_finetuning.sh`: what all three sizes share
BEIT = {
    "optimizer": "adamw",
    "schedule": "cosine",  # by step
    "warmup_lr": 0.0,
    "min_lr": 1e-6,
    "weight_decay": 0.05,
    "decay_positions": False,
    "mixup": 0.8,
    "cutmix": 1.0,
    "smoothing": 0.1,
    "rand_augment": True,
    "erase": 0.25,
    "repeats": 1,
    "ema": None,
    "head": "linear",
    "head_scale": 0.001,
    "warm_start": False,
    "share": None,
}
# Mugs' `eval_transfer_learning.sh`: what all sets share
DEIT = {
    "optimizer": "adamw",
    "schedule": "deit",
    "train_batch_size": 768,  # 4 x 192
    "warmup_epochs": 5,
    "warmup_lr": 1e-6,
    "min_lr": 1e-5,
    "weight_decay": 0.05,
    "decay_positions": True,
    "layer_decay": 1.0,
    "drop_path": 0.1,
    "mixup": 0.8,
    "cutmix": 1.0,
    "smoothing": 0.1,
    "rand_augment": True,
    "erase": 0.1,
    "repeats": 3,
    "ema": None,  # kept by the script, and never tested
    "head": "linear",
    "head_scale": 1.0,
    "warm_start": False,
    "share": None,
}
SEMI = DEIT | {"epochs": 1000, "erase": 0.25, "head": "mlp"}
# VICReg's README and SwAV's `eval_semisup.py`
RESNET = {"optimizer": "sgd", "epochs": 20, "warmup_epochs": 0, "mixup": 0.0, "cutmix": 0.0, "rand_augment": False}
VICREG = RESNET | {"schedule": "cosine_by_epoch", "min_lr": 0.0, "weight_decay": 0.0}
SWAV = RESNET | {"schedule": "steps", "train_batch_size": 256}  # 8 x 32

FIELDS = {
    "mugs_s": BEIT
    | {"epochs": 200, "train_batch_size": 1024, "warmup_epochs": 20, "layer_decay": 0.55, "drop_path": 0.1},
    "mugs_b": BEIT
    | {"epochs": 100, "train_batch_size": 1024, "warmup_epochs": 20, "layer_decay": 0.55, "drop_path": 0.2},
    "mugs_l": BEIT | {"epochs": 50, "train_batch_size": 512, "warmup_epochs": 5, "layer_decay": 0.75, "drop_path": 0.3},
    "mugs_semi_1": SEMI | {"train_batch_size": 512, "share": 0.01},
    "mugs_semi_10": SEMI | {"train_batch_size": 1024, "share": 0.1},
    "vicreg_semi_1": VICREG | {"share": 0.01},
    "vicreg_semi_10": VICREG | {"share": 0.1},
    "swav_semi_1": SWAV | {"share": 0.01},
    "swav_semi_10": SWAV | {"share": 0.1},
    "cifar10_s": DEIT | {"epochs": 1000},
    "cifar10_b": DEIT | {"epochs": 1000},
    "cifar100_s": DEIT | {"epochs": 1000, "weight_decay": 0.02},
    "cifar100_b": DEIT | {"epochs": 1000},
    "inat18_s": DEIT | {"epochs": 360},
    "inat18_b": DEIT | {"epochs": 360},
    "inat19_s": DEIT | {"epochs": 360},
    "inat19_b": DEIT | {"epochs": 360},
    "flowers_s": DEIT | {"epochs": 1000},
    "flowers_b": DEIT | {"epochs": 1000},
    "cars_s": DEIT | {"epochs": 1000},
    "cars_b": DEIT | {"epochs": 1000, "drop_path": 0.3},
}
# learning rates at the published batch, of the last layer, and of the head where it has its own; Mugs' scripts for
# transfer and for few labels multiply theirs by batch / 512
RATES = {
    "mugs_s": (1.2e-3, None),
    "mugs_b": (1.2e-3, None),
    "mugs_l": (8e-4, None),
    "mugs_semi_1": (5e-6 * 512 / 512, None),
    "mugs_semi_10": (5e-6 * 1024 / 512, None),
    "vicreg_semi_1": (0.03, 0.08),
    "vicreg_semi_10": (0.01, 0.1),
    "swav_semi_1": (0.02, 5.0),
    "swav_semi_10": (0.01, 0.2),
    "cifar10_s": (3e-6 * 768 / 512, None),
    "cifar10_b": (7.5e-6 * 768 / 512, None),
    "cifar100_s": (7.5e-6 * 768 / 512, None),
    "cifar100_b": (7.5e-6 * 768 / 512, None),
    "inat18_s": (3e-5 * 768 / 512, None),
    "inat18_b": (1.5e-5 * 768 / 512, None),
    "inat19_s": (7.5e-5 * 768 / 512, None),
    "inat19_b": (3e-5 * 768 / 512, None),
    "flowers_s": (7.5e-5 * 768 / 512, None),
    "flowers_b": (7.5e-5 * 768 / 512, None),
    "cars_s": (1.5e-4 * 768 / 512, None),
    "cars_b": (1.5e-4 * 768 / 512, None),
}
SGD = {
    "optimizer": "sgd",
    "epochs": 100,
    "min_lr": 0.0,
    "warmup_epochs": 0,
    "least_steps": 0,
    "weight_decay": 0.0,
    "by_step": False,
    "batch_norm": False,
}
DINO = SGD | {"learning_rates": (0.001,), "head_batch_size": 1024, "augmentation": "crop"}
STRONG = SGD | {"readouts": ("cls4",), "head_batch_size": 1024, "augmentation": "strong"}
VICREG_LINEAR = SGD | {"head_batch_size": 256, "weight_decay": 1e-6, "augmentation": "crop"}
PROBES = {
    "dino_s": DINO | {"readouts": ("cls4",)},
    "dino_b": DINO | {"readouts": ("cls1+mean",)},
    "dino_resnet": DINO | {"readouts": ()},
    "dinov2": SGD
    | {
        "learning_rates": (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 1e-1),
        "readouts": ("cls1", "cls4", "cls1+mean", "cls4+mean"),
        "epochs": 10,
        "by_step": True,
    },
    "mugs_s_100ep": STRONG | {"learning_rates": (0.015,), "min_lr": 1e-5},
    "mugs_s_300ep": STRONG | {"learning_rates": (0.02,)},
    "mugs_s_800ep": STRONG | {"learning_rates": (0.01,)},
    "mugs_b": STRONG | {"learning_rates": (0.002,), "min_lr": 1e-5, "readouts": ("cls1+mean",), "head_batch_size": 512},
    "mugs_l": STRONG
    | {
        "learning_rates": pytest.approx([digit / tenth for tenth in (1e4, 1e3, 100, 10) for digit in range(1, 10)]),
        "min_lr": 1e-5,
        "readouts": ("cls1+mean",),
    },
    "vicreg": VICREG_LINEAR | {"learning_rates": (0.02,)},
    "vicregl_convnext": VICREG_LINEAR | {"learning_rates": (0.3,)},
    "mae": SGD
    | {
        "learning_rates": (0.1,),
        "optimizer": "lars",
        "epochs": 90,
        "head_batch_size": 16384,
        "warmup_epochs": 10,
        "by_step": True,
        "batch_norm": True,
        "augmentation": "crop",
    },
}


def test_every_preset_of_a_paper_is_in_a_table():
    assert FIELDS.keys() == RATES.keys() == FINETUNE.keys() - {"quick"}
    assert PROBES.keys() == LINEAR.keys() - {"sweep", "sweep_bn"}


@pytest.mark.parametrize("name", FIELDS)
def test_presets_of_fine_tuning_are_those_of_the_scripts(name):
    recipe, (rate, head) = FINETUNE[name], RATES[name]
    assert {field: getattr(recipe, field) for field in FIELDS[name]} == FIELDS[name]
    assert recipe.learning_rate * recipe.train_batch_size / 256 == pytest.approx(rate)
    own = recipe.head_learning_rate
    assert (own and own * recipe.train_batch_size / 256) == head


@pytest.mark.parametrize("name", PROBES)
def test_presets_of_linear_probes_are_those_of_the_scripts(name):
    assert {field: getattr(LINEAR[name], field) for field in PROBES[name]} == PROBES[name]
