"""MAE: masked autoencoders are scalable vision learners (arXiv:2111.06377)."""

from dataclasses import dataclass

from polygrain.methods.base import Method
from polygrain.methods.optimization import Optimization
from polygrain.objectives.reconstruct import HiddenPixels
from polygrain.parts.decoder import TokenDecoder, begin_as_mae
from polygrain.parts.encoder import Encoder
from polygrain.parts.masks import RandomMask
from polygrain.ranges import COUNT, NOT_NEGATIVE, NUMBER, PART, PIXELS, POSITIVE, check_ranges, check_scale
from polygrain.schedules import RunLength, constant, warmup_cosine_by_images
from polygrain.views import Crops


@dataclass(frozen=True, kw_only=True)
class MAE:
    """From a quarter of the patches of an image, predict the pixels of the others. No teacher, no second view.

    Defaults are those of ViT-B/16 for 800 epochs on ImageNet at batch 4096.

    Args:
        large_size: side of the one crop, in pixels.
        large_scale: its share of the image area.
        mask_ratio: share of the patches that the encoder is not shown.
        normalise_patches: targets are each patch less its mean, over its deviation.
        decoder_width: of the decoder, which is thrown away after training.
        decoder_depth: number of its blocks.
        decoder_heads: of its attention.
        base_lr: learning rate per 256 images.
        warmup_epochs: in which the learning rate rises from 0; from there it falls to 0 along a cosine.
        weight_decay: of weights, not of biases and norms.
    """

    large_size: int = 224
    large_scale: tuple[float, float] = (0.2, 1.0)
    mask_ratio: float = 0.75
    normalise_patches: bool = True
    decoder_width: int = 512
    decoder_depth: int = 8
    decoder_heads: int = 16
    base_lr: float = 1.5e-4
    warmup_epochs: float = 40
    weight_decay: float = 0.05

    def __post_init__(self) -> None:
        kinds = {
            PIXELS: "large_size",
            COUNT: "decoder_width decoder_depth decoder_heads",
            NUMBER: "warmup_epochs",
            PART: "large_scale mask_ratio",
            POSITIVE: "base_lr",
            NOT_NEGATIVE: "weight_decay",
        }
        check_ranges(self, kinds)
        check_scale("large_scale", self.large_scale)

    def build(self, encoder: Encoder) -> Method:
        """One network that is shown some patches, and a decoder.

        Raises:
            ValueError: when the encoder is not a plain ViT, or too few patches would be shown or hidden.
        """
        encoder.hide("drop")
        begin_as_mae(encoder.model)
        side = self.large_size // encoder.stride
        mask = RandomMask(patches=side * side, ratio=self.mask_ratio)
        if not 0 < mask.shown < mask.patches:
            raise ValueError(
                f"mask_ratio {self.mask_ratio} shows {mask.shown} of {mask.patches} patches; "
                "some must be shown and some hidden: change mask_ratio, or use larger crops"
            )
        crops = Crops(name="large", count=1, size=self.large_size, scale=self.large_scale, recipes=("mae",), mask=mask)
        decoder = TokenDecoder(
            encoder.dim,
            width=self.decoder_width,
            depth=self.decoder_depth,
            heads=self.decoder_heads,
            grid=(side, side),
            out=encoder.stride**2 * encoder.channels,
        )
        pixels = HiddenPixels(decoder, patch=encoder.stride, normalise=self.normalise_patches)
        return Method(encoder, {"pixels": pixels}, weights={"pixels": 1.0}, student_sees=(crops,))

    def optimization(self, length: RunLength) -> Optimization:
        whole = length._replace(images=length.steps_per_epoch * length.batch_size)  # the authors count in steps
        return Optimization(
            optimizer="adamw",
            lr=warmup_cosine_by_images(self.base_lr * length.batch_size / 256, 0.0, self.warmup_epochs, whole),
            weight_decay=constant(self.weight_decay),
            betas=(0.9, 0.95),
        )
