"""UPerNet (arXiv:1807.10221) on the four-level pyramid of a backbone."""

from typing import Any

from torch import Tensor, nn

from polygrain.evaluate.pyramid import Pyramid
from polygrain.evaluate.segmentation.training import pixel_loss
from polygrain.parts.encoder import Encoder

AUXILIARY_CHANNELS, AUXILIARY_WEIGHT = 256, 0.4


class UPerNet(nn.Module):
    """Pyramid, pooling at 1, 2, 3 and 6 cells, feature pyramid, 1x1 convolution; a small head on the third map helps in
    training alone.

    The decoder is that of segmentation-models-pytorch, which norms the channels of each map before it; that of
    mmsegmentation, which iBOT and Mugs use, does not.

    Args:
        channels: of the decoder.
        dropout: of whole channels, before the last convolution of both heads.

    Raises:
        ValueError: when segmentation-models-pytorch is missing, or the backbone has no pyramid.
    """

    def __init__(self, encoder: Encoder, classes: int, *, channels: int, dropout: float) -> None:
        super().__init__()
        self.pyramid = Pyramid(encoder, normed=True)
        widths = self.pyramid.channels
        self.decoder = decoder(widths, channels)
        self.head = nn.Sequential(nn.Dropout2d(dropout), nn.Conv2d(channels, classes, kernel_size=1))
        self.auxiliary = nn.Sequential(
            nn.Conv2d(widths[2], AUXILIARY_CHANNELS, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(AUXILIARY_CHANNELS),
            nn.ReLU(),
            nn.Dropout2d(dropout),
            nn.Conv2d(AUXILIARY_CHANNELS, classes, kernel_size=1),
        )
        self.stride = self.pyramid.stride

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, C, H, W) to logits (B, classes, H / s, W / s) with s the stride of the finest map."""
        return self._logits(self.pyramid(pixels))

    def loss(self, pixels: Tensor, classes: Tensor) -> Tensor:
        """Cross-entropy of both heads, the auxiliary one weighted by 0.4; classes (B, H, W)."""
        maps = self.pyramid(pixels)
        return pixel_loss(self._logits(maps), classes) + AUXILIARY_WEIGHT * pixel_loss(self.auxiliary(maps[2]), classes)

    def _logits(self, maps: list[Tensor]) -> Tensor:
        found: Tensor = self.head(self.decoder([maps[0], maps[0], *maps]))  # it leaves the first two out
        return found


def decoder(widths: tuple[int, ...], channels: int) -> Any:
    """Raises ValueError when the package that has it is missing."""
    try:
        from segmentation_models_pytorch.decoders.upernet.decoder import UPerNetDecoder
    except ImportError as error:
        raise ValueError("UPerNet needs segmentation-models-pytorch: pip install 'polygrain[segmentation]'") from error
    return UPerNetDecoder(encoder_channels=(0, 0, *widths), encoder_depth=5, decoder_channels=channels)
