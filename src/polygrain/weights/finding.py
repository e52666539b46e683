"""Where a backbone lies in an official file, and whether an encoder is of its kind."""

import re
from collections.abc import Mapping
from typing import Literal, NamedTuple

from torch import Tensor, nn

from polygrain.parts.encoder import Encoder, Family
from polygrain.weights.official import HEADS

Kind = Literal["auto", "mugs", "vicreg", "vicregl"]
Side = Literal["teacher", "student"]
ANCHORS: dict[Family, str] = {  # a tensor that every backbone of a family has, by its official name
    "vit": "patch_embed.proj.weight",
    "resnet": "conv1.weight",
    "convnext": "downsample_layers.0.0.weight",
}
FAMILIES: dict[Kind, tuple[Family, ...]] = {
    "auto": ("vit", "resnet", "convnext"),
    "mugs": ("vit",),
    "vicreg": ("resnet",),
    "vicregl": ("resnet", "convnext"),
}


class Home(NamedTuple):
    """Where a backbone lies in a file."""

    family: Family
    prefix: str


def find_backbone(tensors: Mapping[str, Tensor], kind: Kind, which: Side | None, source: str) -> Home:
    """The family and the common prefix of the backbone's tensors; by default the teacher's, if there is one.

    Raises:
        ValueError: when there is none of this kind, or not from the network asked for.
    """
    prefixes = r"((?:(?:student|teacher|state_dict|model)/)*(?:module\.)?(?:backbone\.|encoder\.|encoder_q\.)?)"
    found = [
        Home(family, match[1])
        for family in FAMILIES[kind]
        for key in tensors
        if (match := re.fullmatch(prefixes + re.escape(ANCHORS[family]), key))
    ]
    if not found:
        wanted = " or ".join(ANCHORS[family] for family in FAMILIES[kind])
        some = ", ".join(list(tensors)[:3])
        raise ValueError(f"{source} holds no backbone as the authors save it: no {wanted}, but {some} ...")
    sides = {prefix.split("/")[0]: Home(family, prefix) for family, prefix in found}
    if "student" in sides or "teacher" in sides:
        which = which or ("teacher" if "teacher" in sides else "student")
        if which not in sides:
            raise ValueError(f"{source} holds no {which}; it has the {' and '.join(sides)}")
        return sides[which]
    return found[0]


def check_build(encoder: Encoder, home: Home, tensors: Mapping[str, Tensor], source: str) -> None:
    """Whether the encoder is of the file's kind: what can be told in words before tensors are compared.

    Raises:
        ValueError: when the encoder is of another family, width or patch, or computes something else with the same
            tensors.
    """
    name, family = encoder.settings.name, home.family
    if encoder.family != family:
        raise ValueError(f"{source} holds a {family}, but {name} is a {encoder.family}")
    if family == "vit":
        _check_sizes(encoder, home, tensors, source)
        heads, official = encoder.model.blocks[0].attn.num_heads, HEADS.get(encoder.dim)
        if official not in (None, heads):
            raise ValueError(f"{name} has {heads} heads; the Mugs ViT of width {encoder.dim} has {official}")
    if family == "convnext":
        if isinstance(encoder.model.norm_pre, nn.Identity):
            raise ValueError(
                f"{name} norms after the mean, VICRegL before it; pass head_norm_first=True to the encoder"
            )
        ours = any(key.endswith(".gamma") for key in encoder.model.state_dict())
        theirs = any(key.endswith(".gamma") for key in tensors)
        if ours != theirs:
            has, value = ("has", 1e-6) if theirs else ("has no", None)
            raise ValueError(f"the file {has} layer scale, unlike {name}; pass ls_init_value={value} to the encoder")


def _check_sizes(encoder: Encoder, home: Home, tensors: Mapping[str, Tensor], source: str) -> None:
    """Whether width, patch and image size of two ViTs agree."""
    codes = encoder.model.pos_embed
    ours = (encoder.dim, encoder.stride, None if codes is None else codes.shape[1] - 1)
    kernel, positions = (tuple(tensors[home.prefix + key].shape) for key in (ANCHORS["vit"], "pos_embed"))
    theirs = (*(kernel[i] if len(kernel) == 4 else None for i in (0, 3)), positions[1] - 1 if positions[2:] else None)
    if ours != theirs:
        told = [f"width {width}, patch {patch}, {count} positions" for width, patch, count in (theirs, ours)]
        raise ValueError(
            f"{source} holds a ViT of {told[0]}, but {encoder.settings.name} has {told[1]}; choose the encoder of the "
            f"file (--encoder, --encoder-args): its position codes are resized for other crop sizes (--position dino)"
        )
