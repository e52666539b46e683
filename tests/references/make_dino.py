"""Numbers of the authors' code for `dino.json`: python -m tests.references.make_dino DINO IBOT

DINO and IBOT are checkouts of github.com/facebookresearch/dino at 7c446df and github.com/bytedance/ibot at da316d8
(both Apache-2.0), unchanged. Two steps of each are run as their `train_one_epoch` runs them, in float32 and without
drop path: student and teacher, heads, loss with its centres, clipping tensor by tensor, AdamW, moving average. Also the
masks of iBOT's loader: how much of a grid they hide, where, and how often nothing.
"""

import ast
import importlib
import json
import math
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

HYPER = {
    "lr": 1e-3,
    "weight_decay": 0.04,
    "clip": 0.3,
    "momentum": 0.9,
    "hidden": 20,
    "bottleneck": 16,
    "prototypes": 24,
    "dim": 32,
    "epoch": 1,
    "images": 3,
    "small_crops": 2,
}
TEMPERATURES = {"start": 0.04, "end": 0.07, "epochs": 3, "run": 10}
PARAMETERS = (
    "backbone.cls_token",
    "backbone.pos_embed",
    "backbone.patch_embed.proj.weight",
    "backbone.blocks.0.attn.qkv.weight",
    "backbone.masked_embed",
    "head.mlp.0.weight",
    "head.last_layer.weight_v",
    "head.last_layer.weight_g",
)


def wave(*shape: int, pace: float) -> Tensor:
    """Numbers in [-1, 1] that look random and are the same everywhere."""
    count = math.prod(shape)
    return torch.sin(pace * torch.arange(count, dtype=torch.float64).square() + pace).float().view(*shape)


def weight(place: int, shape: tuple[int, ...]) -> Tensor:
    """The tensor at a place in a state dict."""
    size = 1.0 if len(shape) == 1 else 2 / math.sqrt(math.prod(shape[1:]))
    return wave(*shape, pace=0.3 + 0.01 * place) * size + (0.5 if len(shape) == 1 else 0)


def crops(step: int) -> list[Tensor]:
    images, small = HYPER["images"], HYPER["small_crops"]
    sides = [32, 32] + [16] * int(small)
    return [wave(int(images), 3, side, side, pace=0.7 + 0.1 * i + 0.01 * step) for i, side in enumerate(sides)]


def masks(step: int) -> list[Tensor]:
    """Of the two large crops; the second image of the first crop hides nothing."""
    hidden = [wave(int(HYPER["images"]), 4, 4, pace=0.9 + 0.1 * i + 0.01 * step) > 0.4 for i in range(2)]
    hidden[0][1] = False
    return hidden


def of_file(path: Path, name: str) -> Any:
    """One class of a file that cannot be imported whole."""
    node = next(n for n in ast.parse(path.read_text()).body if isinstance(n, ast.ClassDef) and n.name == name)
    space = {"nn": nn, "torch": torch, "F": F, "np": np, "dist": dist, "math": math, "random": random}
    exec(compile(ast.Module([node], []), str(path), "exec"), {**space, "ImageFolder": object}, found := {**space})
    return found[name]


def modules(folder: Path, *names: str) -> list[Any]:
    """Modules of a checkout; the checkouts have modules of the same names."""
    for name in ("utils", "vision_transformer", "models", *names):
        for known in [key for key in sys.modules if key == name or key.startswith(f"{name}.")]:
            del sys.modules[known]
    sys.path.insert(0, str(folder))
    try:
        return [importlib.import_module(name) for name in names]
    finally:
        sys.path.pop(0)


def networks(vit: Any, wrapper: Any, head: Any, masked: bool) -> list[nn.Module]:
    """Student and teacher, filled."""
    size = {"img_size": [32], "patch_size": 8, "embed_dim": HYPER["dim"], "depth": 2, "num_heads": 2, "qkv_bias": True}
    made = []
    for side in range(2):
        tokens = {"return_all_tokens": True} if masked else {}
        hides = {"masked_im_modeling": True} if masked and side == 0 else {}
        module = wrapper(vit(**size, **tokens, **hides), head())
        state = module.state_dict()
        filled = {name: weight(50 * side + i, tuple(t.shape)) for i, (name, t) in enumerate(state.items())}
        if masked:
            filled.update({k: filled[k.replace("last_layer2", "last_layer")] for k in filled if "last_layer2" in k})
        module.load_state_dict(filled)
        made.append(module)
    made[1].requires_grad_(False)
    return made


def train(folder: Path, masked: bool) -> dict[str, Any]:
    if masked:
        vits, heads, utils = modules(folder, "models.vision_transformer", "models.head", "utils")
        head_class, shared = heads.iBOTHead, {"shared_head": True}
        loss_class = of_file(folder / "main_ibot.py", "iBOTLoss")
    else:
        vits, utils = modules(folder, "vision_transformer", "utils")
        head_class, shared = vits.DINOHead, {}
        loss_class = of_file(folder / "main_dino.py", "DINOLoss")

    def head() -> nn.Module:
        widths = {"hidden_dim": HYPER["hidden"], "bottleneck_dim": HYPER["bottleneck"]}
        made: nn.Module = head_class(HYPER["dim"], HYPER["prototypes"], norm_last_layer=False, **widths, **shared)
        return made

    student, teacher = networks(vits.VisionTransformer, utils.MultiCropWrapper, head, masked)
    start = {
        f"{side}/{name}": list(tensor.shape)
        for side, network in (("student", student), ("teacher", teacher))
        for name, tensor in network.state_dict().items()
    }
    t = TEMPERATURES
    ramp = (t["start"], t["end"])
    if masked:
        loss_of = loss_class(24, 24, 2, HYPER["small_crops"], *ramp, *ramp, t["epochs"], t["run"])
    else:
        loss_of = loss_class(24, 2 + HYPER["small_crops"], *ramp, t["epochs"], t["run"])
    loss_of.center.copy_(wave(1, 24, pace=0.77))
    if masked:
        loss_of.center2.copy_(wave(1, 1, 24, pace=0.79))
    optimizer = torch.optim.AdamW(utils.get_params_groups(student))
    for group, decay in zip(optimizer.param_groups, (HYPER["weight_decay"], 0.0), strict=True):
        group.update(lr=HYPER["lr"], weight_decay=decay)
    steps = []
    for step in range(2):
        views = crops(step)
        if masked:
            theirs = teacher(views[:2])
            ours = student(views[:2], mask=masks(step))
            student.backbone.masked_im_modeling = False
            small = student(views[2:])[0]
            student.backbone.masked_im_modeling = True
            losses = loss_of(ours, theirs, small, masks(step), HYPER["epoch"])
        else:
            loss = loss_of(student(views), teacher(views[:2]), HYPER["epoch"])
            losses = {"cls": loss, "loss": loss}
        optimizer.zero_grad()
        losses["loss"].backward()
        own = {name: p for name, p in student.named_parameters() if name in PARAMETERS}
        gradients = {name: float(p.grad.norm()) for name, p in own.items() if p.grad is not None}
        utils.clip_gradients(student, HYPER["clip"])
        utils.cancel_gradients_last_layer(HYPER["epoch"], student, 1)
        optimizer.step()
        kept = dict(teacher.named_parameters())
        with torch.no_grad():
            for name, p in student.named_parameters():
                if name in kept:
                    kept[name].mul_(HYPER["momentum"]).add_((1 - HYPER["momentum"]) * p)
        steps.append(
            {
                "losses": {name: float(value) for name, value in losses.items()},
                "gradients": gradients,
                "student": {name: p.detach().double().sum().item() for name, p in own.items()},
                "teacher": {n: p.double().sum().item() for n, p in kept.items() if n in PARAMETERS},
                "centres": [b.flatten()[:6].tolist() for b in loss_of.buffers()],
            }
        )
    return {"shapes": start, "steps": steps}


def loader_masks(folder: Path) -> dict[str, Any]:
    """Share hidden: mean, how often none, and quantiles, of 20,000 masks of iBOT's loader for each setting."""
    source = (
        (folder / "loader.py").read_text().replace("super(ImageFolderMask, self).__getitem__(index)", "([self.of],)")
    )
    path = Path(tempfile.mkdtemp()) / "loader.py"
    path.write_text(source)
    draw = of_file(path, "ImageFolderMask")
    random.seed(0)
    found = {}
    for name, side, ratio, spread in (("mixed", 14, [0, 0.3], [0, 0.2]), ("third", 14, 0.3, 0), ("small", 8, 0.5, 0)):
        me = draw.__new__(draw)
        me.__dict__.update(
            psz=1,
            pred_ratio=ratio,
            pred_ratio_var=spread,
            pred_shape="block",
            pred_start_epoch=0,
            of=torch.zeros(3, side, side),
        )
        me.log_aspect_ratio = (math.log(0.3), -math.log(0.3))
        drawn = np.stack([me[0][-1][0] for _ in range(20_000)])
        shares = drawn.mean((1, 2))
        rows = np.abs(np.diff(drawn.astype(int), axis=1)).sum((1, 2)).mean()  # how ragged masks are
        found[name] = {
            "mean": shares.mean(),
            "empty": float((shares == 0).mean()),
            "std": shares.std(),
            "edges": float(rows),
            "corner": drawn[:, 0, 0].mean(),
            "middle": drawn[:, side // 2, side // 2].mean(),
        }
    return found


def main() -> None:
    dino, ibot = (Path(folder) for folder in sys.argv[1:3])
    with tempfile.NamedTemporaryFile() as file:
        dist.init_process_group("gloo", init_method=f"file://{file.name}.store", rank=0, world_size=1)
    numbers = {"dino": train(dino, masked=False), "ibot": train(ibot, masked=True), "masks": loader_masks(ibot)}
    Path(__file__).with_name("dino.json").write_text(json.dumps(numbers, indent=1) + "\n")


if __name__ == "__main__":
    main()
