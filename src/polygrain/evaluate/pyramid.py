"""Maps of a backbone at four resolutions, each half the one before: what heads for dense prediction are built on."""

from itertools import pairwise

from torch import Tensor, nn

from polygrain.parts.encoder import Encoder


class Pyramid(nn.Module):
    """The four-level pyramid of iBOT and Mugs: maps after four blocks of a ViT, brought to four resolutions.

    The first map is enlarged four times (deconvolution, BatchNorm, GELU, deconvolution), the second twice, the third
    stays, the fourth is max-pooled; channels are kept. The last four stages of a ResNet or ConvNeXt are that already.
    (iBOT, arXiv:2111.07832, official `evaluation/object_detection` and `evaluation/semantic_segmentation`.)

    Args:
        normed: a ViT's final norm is applied to each map: yes in their segmentation, no in their detection.

    Attributes:
        strides: pixels of the image to one cell of each map, as many to the right as down.
        channels: of each map.
        stride: sides of the images must be multiples of it, so that each map is twice the next one.

    Raises:
        ValueError: when the backbone has fewer than four stages, or a ViT's patches are smaller than 4 px.
    """

    def __init__(self, encoder: Encoder, *, normed: bool) -> None:
        super().__init__()
        self.encoder = encoder
        self.normed = normed
        self.indices: tuple[int, ...]
        self.channels: tuple[int, ...]
        self.resize = nn.ModuleList([nn.Identity() for _ in range(4)])
        if encoder.family == "vit":
            self.indices = taps(encoder.depth)
            self.strides = strides_of_vit(encoder)
            self.channels = (encoder.dim,) * 4
            self.resize = resizing(encoder.dim)
        else:
            if encoder.depth < 4:
                raise ValueError(f"{encoder.settings.name} has {encoder.depth} stages; a pyramid needs four")
            self.indices = tuple(range(encoder.depth - 4, encoder.depth))
            stages = [encoder.model.feature_info[index] for index in self.indices]
            self.strides = tuple(int(stage["reduction"]) for stage in stages)
            self.channels = tuple(int(stage["num_chs"]) for stage in stages)
        assert all(large == 2 * small for small, large in pairwise(self.strides))
        self.stride = self.strides[-1]

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Four maps (B, channels, H / stride, W / stride), the largest first.

        Args:
            pixels: (B, C, H, W), normalised; H and W multiples of `stride`.
        """
        wanted = sorted(set(self.indices))  # a ViT of two or three blocks has fewer than four
        levels = self.encoder.levels(pixels, wanted, normed=self.normed)
        maps = dict(zip(wanted, levels, strict=True))
        return [resize(maps[index].map) for index, resize in zip(self.indices, self.resize, strict=True)]


class SimplePyramid(nn.Module):
    """The simple feature pyramid of ViTDet: four resolutions of a ViT's last map, with the same channels.

    (arXiv:2203.16527, sec. 3; detectron2's `SimpleFeaturePyramid`: narrower maps when enlarged, then a 1x1 and a 3x3
    convolution, each with a LayerNorm over channels. Its `ViT` has no final norm: the map is the last block's.)
    Attributes and `forward` are those of `Pyramid`.

    Raises:
        ValueError: when the encoder is no ViT, or its patches are smaller than 4 px.
    """

    def __init__(self, encoder: Encoder, *, channels: int = 256) -> None:
        super().__init__()
        if encoder.family != "vit":
            raise ValueError(f"{encoder.settings.name} is a {encoder.family}, whose stages are a pyramid already")
        self.encoder = encoder
        self.strides = strides_of_vit(encoder)
        self.channels = (channels,) * 4
        self.stride = self.strides[-1]
        dim = encoder.dim
        quadruple = [doubling(dim, dim // 2), ChannelNorm(dim // 2), nn.GELU(), doubling(dim // 2, dim // 4)]
        scales: list[tuple[list[nn.Module], int]] = [
            (quadruple, dim // 4),
            ([doubling(dim, dim // 2)], dim // 2),
            ([], dim),
            ([nn.MaxPool2d(2)], dim),
        ]
        self.resize = nn.ModuleList(nn.Sequential(*layers, *_to(width, channels)) for layers, width in scales)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        (last,) = self.encoder.levels(pixels, [self.encoder.depth - 1], normed=False)
        return [resize(last.map) for resize in self.resize]


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of each position of a map (B, D, rows, columns)."""

    def forward(self, maps: Tensor) -> Tensor:
        return super().forward(maps.movedim(1, -1)).movedim(-1, 1)


def taps(depth: int) -> tuple[int, ...]:
    """Blocks 3, 5, 7 and 11 of twelve (counted from 0), and those at the same shares of any depth."""
    return tuple(max(1, round(depth * share / 12)) - 1 for share in (4, 6, 8, 12))


def strides_of_vit(encoder: Encoder) -> tuple[int, ...]:
    if encoder.stride % 4:
        raise ValueError(
            f"patches of {encoder.stride} px cannot be divided by 4, as a pyramid needs; use patches of 8 or 16"
        )
    return tuple(encoder.stride * share // 4 for share in (1, 2, 4, 8))


def resizing(dim: int) -> nn.ModuleList:
    """Four times and twice as large, as it is, and half."""
    quadruple = nn.Sequential(doubling(dim, dim), nn.BatchNorm2d(dim), nn.GELU(), doubling(dim, dim))
    return nn.ModuleList([quadruple, doubling(dim, dim), nn.Identity(), nn.MaxPool2d(2)])


def doubling(inputs: int, outputs: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(inputs, outputs, kernel_size=2, stride=2)


def _to(inputs: int, outputs: int) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, kernel_size=1, bias=False),
        ChannelNorm(outputs),
        nn.Conv2d(outputs, outputs, kernel_size=3, padding=1, bias=False),
        ChannelNorm(outputs),
    ]
