"""Mask R-CNN and Cascade Mask R-CNN on the pyramid of a backbone, from torchvision's parts."""

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.poolers import initLevelMapper

from polygrain.data.photometric import Normalisation
from polygrain.evaluate.detection.cascade import CascadeHeads
from polygrain.evaluate.pyramid import Pyramid, SimplePyramid
from polygrain.evaluate.settings.detection import DetectionRecipe
from polygrain.parts.encoder import Encoder

SCALE = 8  # side of an anchor, in cells of its map
RATIOS = (0.5, 1.0, 2.0)
BOX_CELLS, MASK_CELLS = 7, 14


class PyramidNetwork(nn.Module):
    """A pyramid, the feature pyramid network on it (a `SimplePyramid` takes its place, as in ViTDet), and a fifth level
    of half the resolution.

    On a GPU they compute in bfloat16. What follows does not: torchvision decodes boxes in the type of their offsets,
    and bfloat16 has eight bits for a place in the image.
    """

    def __init__(self, pyramid: Pyramid | SimplePyramid, channels: int) -> None:
        super().__init__()
        self.pyramid = pyramid
        self.out_channels = channels
        self.network: nn.Module = nn.Identity()
        if isinstance(pyramid, Pyramid):
            self.network = FeaturePyramidNetwork(list(pyramid.channels), channels)

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        with torch.autocast("cuda", torch.bfloat16, enabled=pixels.is_cuda):
            maps = self.network(OrderedDict((str(i), level) for i, level in enumerate(self.pyramid(pixels))))
        levels = [level.float() for level in maps.values()]
        return {str(i): level for i, level in enumerate([*levels, F.max_pool2d(levels[-1], 1, stride=2)])}


def build_detector(
    encoder: Encoder,
    *,
    detector: str,
    pyramid: str,
    classes: int,
    normalisation: Normalisation,
    recipe: DetectionRecipe,
) -> MaskRCNN:
    """The whole detector; takes lists of images in [0, 1] of any size, as torchvision's do.

    Args:
        classes: without the background.
        detector: "mask" or "cascade"; `pyramid`: "taps" or "last".
    """
    levels: Pyramid | SimplePyramid
    levels = SimplePyramid(encoder, channels=recipe.channels) if pyramid == "last" else Pyramid(encoder, normed=False)
    channels = recipe.channels
    strides = (*levels.strides, 2 * levels.strides[-1])
    pools = {cells: pool(cells, levels.strides) for cells in (BOX_CELLS, MASK_CELLS)}
    model = MaskRCNN(
        PyramidNetwork(levels, channels),
        min_size=recipe.short_sides,
        max_size=recipe.longest,
        image_mean=list(normalisation.mean),
        image_std=list(normalisation.std),
        size_divisible=levels.stride,
        rpn_anchor_generator=AnchorGenerator(tuple((SCALE * stride,) for stride in strides), (RATIOS,) * len(strides)),
        rpn_pre_nms_top_n_train=recipe.proposals,
        rpn_post_nms_top_n_train=recipe.proposals,
        rpn_pre_nms_top_n_test=recipe.proposals // 2,
        rpn_post_nms_top_n_test=recipe.proposals // 2,
        box_roi_pool=pools[BOX_CELLS],
        box_head=TwoMLPHead(channels * BOX_CELLS**2, recipe.hidden),
        box_predictor=FastRCNNPredictor(recipe.hidden, classes + 1),
        box_batch_size_per_image=recipe.samples,
        mask_roi_pool=pools[MASK_CELLS],
        mask_head=MaskRCNNHeads(channels, (channels,) * 4, 1),
        mask_predictor=MaskRCNNPredictor(channels, channels, classes + 1),
    )
    if detector == "cascade":
        model.roi_heads = CascadeHeads(
            pools[BOX_CELLS],
            pools[MASK_CELLS],
            channels=channels,
            hidden=recipe.hidden,
            classes=classes,
            samples=recipe.samples,
        )
    return model


def pool(cells: int, strides: Sequence[int]) -> MultiScaleRoIAlign:
    """RoIAlign on the maps of a pyramid with these strides.

    torchvision would guess them from the first batch, whose maps are larger than its images by what was padded: after a
    narrow image it read all others at twice their coordinates.
    """
    made: Any = MultiScaleRoIAlign([str(i) for i in range(len(strides))], cells, sampling_ratio=0)
    made.scales = [1 / stride for stride in strides]
    least, most = (int(math.log2(stride)) for stride in (strides[0], strides[-1]))
    made.map_levels = initLevelMapper(least, most)
    return made


def shown_at(model: Any, side: int) -> None:
    """From now on the short side of images is brought to this length."""
    model.transform.min_size = (side,)


def with_drop_path(encoder: Encoder, rate: float) -> Encoder:
    """The same encoder with stochastic depth, whose rate grows linearly over the blocks up to this one."""
    arguments = {**encoder.settings.arguments, "drop_path_rate": rate}
    rebuilt = Encoder(replace(encoder.settings, arguments=arguments, pretrained=False))
    rebuilt.model.load_state_dict(encoder.model.state_dict())
    return rebuilt
