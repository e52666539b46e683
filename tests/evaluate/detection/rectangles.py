"""Made-up images: one to three coloured rectangles on grey; the colour is the category."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

CATEGORIES = {3: ("red", (220, 40, 40)), 8: ("green", (40, 200, 60))}


class Written(NamedTuple):
    images: Path
    annotations: Path


def write(folder: Path, count: int, seed: int = 0) -> Written:
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    images, annotations = [], []
    for i in range(1, count + 1):
        high, wide = (int(side) for side in random.integers(64, 97, 2))
        pixels = random.integers(110, 140, (high, wide, 3)).astype(np.uint8)
        for _ in range(random.integers(1, 4)):
            w, h = (int(side) for side in random.integers(20, 40, 2))
            x, y = int(random.integers(0, wide - w)), int(random.integers(0, high - h))
            category = int(random.choice([*CATEGORIES]))
            pixels[y : y + h, x : x + w] = CATEGORIES[category][1]
            corners = [float(value) for value in (x, y, x + w, y, x + w, y + h, x, y + h)]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": i,
                    "category_id": category,
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "segmentation": [corners],
                    "iscrowd": 0,
                }
            )
        Image.fromarray(pixels).save(folder / f"{i}.png")
        images.append({"id": i, "file_name": f"{i}.png", "height": high, "width": wide})
    categories = [{"id": category, "name": name} for category, (name, _) in CATEGORIES.items()]
    path = folder / "instances.json"
    path.write_text(json.dumps({"images": images, "categories": categories, "annotations": annotations}))
    return Written(folder, path)
