"""Where a backbone lies in an official file, and whether an encoder is of its kind."""

import re
from collections.abc import Mapping
from typing import Literal, NamedTuple

from torch import Tensor, nn

from polygrain.parts.encoder import Encoder, Family
from polygrain.weights.official import heads_of

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


NETWORKS: dict[str, Side] = {  # of MoCo, PCL and MoCo-v3, whose authors evaluate the student
    "encoder_q.": "student",
    "encoder_k.": "teacher",
    "base_encoder.": "student",
    "momentum_encoder.": "teacher",
}

OF_INFOMIN = "model_ema/"  # its teacher


class Home(NamedTuple):
    """Where a backbone lies in a file."""

    family: Family
    prefix: str


def find_backbone(tensors: Mapping[str, Tensor], kind: Kind, which: Side | None, source: str) -> Home:
    """The family and the common prefix of the backbone's tensors; by default those of the network that is evaluated.

    That is the teacher, if there is one, and of MoCo, MoCo-v3, PCL and InfoMin the student.

    Raises:
        ValueError: when there is none of this kind, or not from the network asked for.
    """
    inner = "|".join(map(re.escape, ("backbone.", "encoder.", *NETWORKS)))
    prefixes = rf"((?:(?:student|teacher|state_dict|model|model_ema)/)*(?:module\.)?(?:{inner})?)"
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
    sides = {side_of(prefix) or "": Home(family, prefix) for family, prefix in found}
    if any(home.prefix.startswith(OF_INFOMIN) for home in found):  # the other network is the student
        sides["student"] = sides.pop("")
    if "student" in sides or "teacher" in sides:
        by_name = any(home.prefix.startswith(("student/", "teacher/")) for home in found)  # DINO, iBOT, Mugs
        evaluated: Side = "teacher" if by_name else "student"
        which = which or (evaluated if evaluated in sides else "student")
        if which not in sides:
            raise ValueError(f"{source} holds no {which}; it has the {' and '.join(sides)}")
        return sides[which]
    return found[0]


def side_of(prefix: str) -> Side | None:
    """Whose tensors begin with this prefix, where a file holds two networks."""
    for name, side in {"student/": "student", "teacher/": "teacher", OF_INFOMIN: "teacher", **NETWORKS}.items():
        if prefix.startswith(name) or prefix.endswith(name):
            return side
    return None


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
        heads, official = encoder.model.blocks[0].attn.num_heads, heads_of(home.prefix).get(encoder.dim)
        if official not in (None, heads):
            authors = "MoCo-v3" if home.prefix.endswith(tuple(NETWORKS)) else "Mugs, DINO, iBOT and MAE"
            raise ValueError(
                f"{name} has {heads} heads; the ViT of width {encoder.dim} of {authors} has {official}: "
                f"pass num_heads={official} to the encoder"
            )
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
