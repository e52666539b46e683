"""Trained backbones as files for other libraries, checked against the encoder they came from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import timm
import torch
from torch import Tensor

from polygrain.parts.encoder import Encoder
from polygrain.parts.sizes import ENCODERS, ReadyMade
from polygrain.parts.stems import use_small_stem
from polygrain.weights.backbone import Backbone, load_encoder, open_backbone, save_backbone
from polygrain.weights.durable import write_durably
from polygrain.weights.tensors import write_tensors

Target = Literal["timm", "torch", "safetensors"]
SUFFIXES: dict[Target, str] = {"timm": ".safetensors", "torch": ".pth", "safetensors": ".safetensors"}
TOLERANCE = 1e-5


class Portable(NamedTuple):
    """A backbone in terms of `timm.create_model`."""

    name: str
    arguments: Mapping[str, Any]
    small_stem: bool
    channels: int
    tensors: Mapping[str, Tensor]


class Exported(NamedTuple):
    """A written file; prints as what a person needs to use it."""

    path: Path
    code: str  # Python lines that load it into `model`
    difference: float  # largest absolute difference of outputs between the file and the encoder

    def __str__(self) -> str:
        return (
            f"{self.path}: outputs differ by at most {self.difference:.1e} from the encoder; load it with\n{self.code}"
        )


def export(source: str | Path, to: Target, out: str | Path) -> Exported:
    """Writes the backbone of a run, or of a file of ours, for another library, and compares the outputs.

    "timm" is a file for `timm.create_model(..., checkpoint_path=...)`; "torch" the same tensors as a plain state
    dict; "safetensors" our own format, with its description, for `polygrain.load_encoder`.

    Raises:
        ValueError: at a wrong kind or file name, when timm cannot express the encoder, or the outputs differ.
    """
    if to not in SUFFIXES:
        raise ValueError(f"cannot export to {to!r}; choose from {', '.join(SUFFIXES)}")
    out = Path(out)
    if out.suffix != SUFFIXES[to]:
        raise ValueError(f"a file for {to} ends in {SUFFIXES[to]}; {out} does not")
    backbone = open_backbone(source)
    portable = in_terms_of_timm(backbone.encoder)
    out.parent.mkdir(parents=True, exist_ok=True)
    extra = {**backbone.training, "crop_size": backbone.crop_size}
    if to == "safetensors":
        save_backbone(out, backbone.encoder, normalisation=backbone.normalisation, extra=extra)
    elif to == "torch":
        state = {key: value.clone() for key, value in portable.tensors.items()}
        write_durably(out, lambda file: torch.save(state, file))
    else:
        write_tensors(out, portable.tensors, {"format": "pt"})
    loaded = load_encoder(out).model if to == "safetensors" else rebuild(portable, out)
    difference = largest_difference(backbone.encoder, loaded)
    if not difference <= TOLERANCE:
        raise ValueError(f"{out} gives other outputs than {source}: they differ by {difference:.1e}")
    return Exported(out, python_lines(portable, backbone, to, out), difference)


def in_terms_of_timm(encoder: Encoder) -> Portable:
    """Name, arguments and tensors; a ConvNeXt without layer scale gets one of ones, since timm's default has one.

    Raises:
        ValueError: for other arguments that are None, which `timm.create_model` drops.
    """
    settings = encoder.settings
    ready_made = ENCODERS.get(settings.name, ReadyMade(name=settings.name, about="as timm has it"))
    arguments = {**ready_made.arguments, **settings.arguments}
    arguments = {key: value for key, value in arguments.items() if "drop" not in key}  # matter in training alone
    tensors = dict(encoder.model.state_dict())
    if "ls_init_value" in arguments and arguments["ls_init_value"] is None:
        arguments["ls_init_value"] = 1.0
        for key in [key for key in tensors if key.endswith(".conv_dw.bias")]:
            tensors[key.replace(".conv_dw.bias", ".gamma")] = torch.ones_like(tensors[key])
    if nones := [key for key, value in arguments.items() if value is None]:
        raise ValueError(f"timm.create_model cannot pass None, the value of {', '.join(nones)}; export to safetensors")
    if encoder.channels != 3:
        arguments["in_chans"] = encoder.channels
    if encoder.family == "vit" and settings.position == "timm":
        arguments.setdefault("dynamic_img_size", True)
    return Portable(ready_made.name.partition(".")[0], arguments, ready_made.small_stem, encoder.channels, tensors)


def rebuild(portable: Portable, path: Path) -> Any:
    """What the lines of `python_lines` do."""
    model = timm.create_model(portable.name, num_classes=0, **portable.arguments)
    if portable.small_stem:
        use_small_stem(model)
    timm.models.load_checkpoint(model, str(path))
    return model


@torch.no_grad()
def largest_difference(encoder: Encoder, model: Any) -> float:
    """Over pooled vectors and maps of random and of constant images at the encoder's own size."""
    size = encoder.image_size
    noise = torch.randn(2, encoder.channels, size, size, generator=torch.Generator().manual_seed(0))
    pixels = torch.cat([noise, torch.zeros_like(noise[:1]), torch.ones_like(noise[:1])])
    ours, theirs = encoder.model.eval(), model.eval()
    pairs = [(f(pixels), g(pixels)) for f, g in ((ours, theirs), (ours.forward_features, theirs.forward_features))]
    return max(float((one - other).abs().max()) for one, other in pairs)


def python_lines(portable: Portable, backbone: Backbone, to: Target, path: Path) -> str:
    mean, std = (tuple(round(value, 4) for value in values) for values in backbone.normalisation)
    kind = "RGB" if portable.channels == 3 else f"{portable.channels} channels"
    pixels = f"# pixels: {kind} in 0..1, minus {mean}, divided by {std}; trained at {backbone.crop_size} px"
    if to == "safetensors":
        return f'import polygrain\n{pixels}\nmodel = polygrain.load_encoder("{path}").model'
    lines = ["import timm", "import torch", pixels]
    if backbone.encoder.settings.position == "dino":
        lines.append(
            f"# at other sizes than {backbone.encoder.image_size} px, training resampled position codes as DINO does"
        )
    arguments = "".join(f", {key}={value!r}" for key, value in portable.arguments.items())
    if to == "timm" and not portable.small_stem:
        arguments += f', checkpoint_path="{path}"'
    lines.append(f'model = timm.create_model("{portable.name}", num_classes=0{arguments})')
    if portable.small_stem:
        width = portable.tensors["conv1.weight"].shape[0]
        lines.append(
            f"model.conv1 = torch.nn.Conv2d({portable.channels}, {width}, kernel_size=3, padding=1, bias=False)"
        )
        lines.append("model.maxpool = torch.nn.Identity()")
    if to == "torch":
        lines.append(f'model.load_state_dict(torch.load("{path}", weights_only=True))')
    elif portable.small_stem:
        lines.append(f'timm.models.load_checkpoint(model, "{path}")')
    return "\n".join(lines)
