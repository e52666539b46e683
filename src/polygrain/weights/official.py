"""Which encoder an official file is of, told from its shapes."""

from collections.abc import Mapping

from torch import Tensor

from polygrain.parts.encoder import EncoderSettings, Family

VITS = {
    384: "vit_small_patch16_224",
    768: "vit_base_patch16_224",
    1024: "vit_large_patch16_224",
    1280: "vit_huge_patch16_224",
}
# Every shape is the same with other numbers of heads, so shapes cannot tell; those of the authors are known.
HEADS = {384: 6, 768: 12, 1024: 16, 1280: 16}
MOCOV3_HEADS = {384: 12, 768: 12, 1024: 16}
CONVNEXTS = {96: "convnext_small_vicregl", 128: "convnext_base_vicregl", 256: "convnext_xlarge_vicregl"}


def heads_of(prefix: str) -> Mapping[int, int]:
    """Numbers of heads by width, of the authors whose backbones have tensors of this prefix."""
    return MOCOV3_HEADS if prefix.endswith(("base_encoder.", "momentum_encoder.")) else HEADS


def released_encoder(tensors: Mapping[str, Tensor], family: Family, prefix: str, source: str) -> EncoderSettings:
    """Settings of the released network with these tensors: ViT-S/B/L/H, ResNet-50, ConvNeXt-S/B/XL of VICRegL.

    Raises:
        ValueError: when the authors released none of this width.
    """
    if family == "resnet":
        return EncoderSettings(name="resnet50")
    anchor, names = {
        "vit": ("norm.weight", VITS),
        "convnext": ("downsample_layers.0.0.weight", CONVNEXTS),
    }[family]
    width = next(iter(tensors[prefix + anchor].shape), 0)
    if width not in names:
        raise ValueError(
            f"{source} holds a {family} of width {width}, the released ones have {', '.join(map(str, names))}; "
            f"name its encoder and start from it with --from"
        )
    name = names[width]
    if family == "vit":
        name = name.replace("patch16", f"patch{tensors[prefix + 'patch_embed.proj.weight'].shape[-1]}")
    heads = heads_of(prefix).get(width)
    arguments = {"num_heads": heads} if family == "vit" and heads != HEADS.get(width) else {}
    return EncoderSettings(name=name, position="dino" if family == "vit" else "timm", arguments=arguments)
