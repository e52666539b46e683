"""The linear sweep: many learning rates trained together against one by one, on features in memory.

python -m benchmarks.sweep [--images 4000] [--dim 384] [--classes 100] [--epochs 5]
"""

import argparse
import dataclasses
import time

import torch

from polygrain.evaluate.settings.heads import PRESETS
from polygrain.evaluate.sweep import train_heads


def seconds(features: torch.Tensor, labels: torch.Tensor, classes: int, recipes: list) -> tuple[float, list]:
    start = time.process_time()
    heads = [train_heads(features, labels, classes=classes, recipe=recipe, seed=0) for recipe in recipes]
    return time.process_time() - start, heads


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("images", 4000), ("dim", 384), ("classes", 100), ("epochs", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    random = torch.Generator().manual_seed(0)
    features = torch.randn(options.images, options.dim, generator=random)
    labels = torch.randint(options.classes, (options.images,), generator=random)
    recipe = dataclasses.replace(PRESETS["sweep"], epochs=options.epochs)
    alone = [dataclasses.replace(recipe, learning_rates=(rate,)) for rate in recipe.learning_rates]
    seconds(features, labels, options.classes, [dataclasses.replace(recipe, epochs=1)])  # warm-up
    one_by_one, single = seconds(features, labels, options.classes, alone)
    together, (joint,) = seconds(features, labels, options.classes, [recipe])
    same = all(torch.equal(joint.weight[j], heads.weight[0]) for j, heads in enumerate(single))
    print(
        f"{len(alone)} learning rates, {options.images} x {options.dim} features, {options.classes} classes, "
        f"{options.epochs} epochs, {torch.get_num_threads()} thread(s): one by one {one_by_one:.2f} s, together "
        f"{together:.2f} s, ratio {one_by_one / together:.2f}; same weights to the last bit: {same}"
    )


if __name__ == "__main__":
    main()
