"""Numbers of the authors' code for `propagation.json`: python -m tests.references.make_propagation DINO

DINO is a checkout of github.com/facebookresearch/dino at 7c446df (Apache-2.0), unchanged. Functions of its
`eval_video_segmentation.py` carry the labels of a first frame through made-up features of a video, and turn them into
masks: its loop over frames, on the CPU.
"""

import argparse
import ast
import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.references.make_dino import wave

FRAMES, DIM, ROWS, COLUMNS, PATCH = 6, 8, 6, 9, 4
CLASSES, PREVIOUS, NEIGHBOURS, WINDOW = 3, 2, 5, 2
FUNCTIONS = ("restrict_neighborhood", "norm_mask", "label_propagation", "extract_feature")


def features() -> Tensor:
    """(T, D, h, w), each frame like the one before it."""
    still = wave(DIM, ROWS, COLUMNS, pace=0.37)
    return torch.stack([still + 0.4 * wave(DIM, ROWS, COLUMNS, pace=0.11 + 0.02 * t) for t in range(FRAMES)])


def first_mask() -> Tensor:
    """(h, w) ids: two objects on a background."""
    ids = torch.zeros(ROWS, COLUMNS, dtype=torch.long)
    ids[1:4, 1:4], ids[3:6, 5:8] = 1, 2
    return ids


class Made:
    """A model whose features of frame t are given."""

    def __init__(self, frames: Tensor) -> None:
        self.frames = frames
        self.patch_embed = argparse.Namespace(patch_size=PATCH)

    def get_intermediate_layers(self, frame: Tensor, n: int) -> list[Tensor]:
        tokens = self.frames[int(frame[0, 0, 0, 0])].flatten(1).T[None]
        return [torch.cat([torch.zeros(1, 1, DIM), tokens], dim=1)]


def authors(root: Path) -> dict[str, Any]:
    """Their functions, on the CPU, without the script's other imports."""
    tree = ast.parse((root / "eval_video_segmentation.py").read_text())
    tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in FUNCTIONS]
    torch.Tensor.cuda = lambda self, **_: self  # type: ignore[method-assign,assignment]
    arguments = argparse.Namespace(size_mask_neighborhood=WINDOW, topk=NEIGHBOURS)
    found: dict[str, Any] = {"torch": torch, "F": F, "args": arguments}
    exec(compile(tree, "eval_video_segmentation.py", "exec"), found)
    return found


def main() -> None:
    code = authors(Path(sys.argv[1]))
    frames = features()
    model = Made(frames)
    start = frames[0].flatten(1)  # (D, h w)
    first = F.one_hot(first_mask(), CLASSES).permute(2, 0, 1).float()[None]
    recent: list[tuple[Tensor, Tensor]] = []
    for t in range(1, FRAMES):
        shown = torch.full((3, ROWS * PATCH, COLUMNS * PATCH), float(t))
        labels, seen, _ = code["label_propagation"](
            code["args"], model, shown, [start] + [f for f, _ in recent], [first] + [s for _, s in recent]
        )
        recent = [*recent, (seen, labels.clone())][-PREVIOUS:]
    large = F.interpolate(labels, scale_factor=PATCH, mode="bilinear", align_corners=False)[0]
    ids = torch.max(code["norm_mask"](large), dim=0)[1]
    full = torch.max(code["norm_mask"](torch.stack([torch.zeros(2, 2), torch.ones(2, 2)])), dim=0)[1]
    out = {
        "labels": [round(x, 7) for x in labels.flatten().tolist()],
        "ids": ["".join(map(str, row)) for row in ids.tolist()],
        "of_an_object_that_fills_the_frame": full.flatten().tolist(),
    }
    Path(__file__).with_name("propagation.json").write_text(json.dumps(out, indent=1) + "\n")


if __name__ == "__main__":
    main()
