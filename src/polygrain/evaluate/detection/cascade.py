"""The second stage of Cascade Mask R-CNN: three heads, each on the boxes that the one before has moved."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads, maskrcnn_inference, maskrcnn_loss
from torchvision.ops import MultiScaleRoIAlign, clip_boxes_to_image, generalized_box_iou_loss

GIOU_WEIGHT = 10.0


class Stage(NamedTuple):
    """One of the three."""

    overlap: float  # IoU from which a box holds an object
    weight: float  # of its losses
    deviation: tuple[float, float, float, float]  # by which offsets of x, y, width and height are divided


STAGES = (
    Stage(0.5, 1.0, (0.1, 0.1, 0.2, 0.2)),
    Stage(0.6, 0.5, (0.05, 0.05, 0.1, 0.1)),
    Stage(0.7, 0.25, (0.033, 0.033, 0.067, 0.067)),
)


class CascadeHeads(nn.Module):
    """Three stages of boxes, classes and masks (Cascade R-CNN, arXiv:1712.00726), as iBOT and Mugs train them.

    Boxes are class-specific; each stage has a head of four convolutions with BatchNorm and one linear layer, the GIoU
    loss of its decoded boxes times 10, and a mask head. In testing the logits of the three are averaged, boxes are the
    last stage's, masks the mean of the three (their mmdetection configurations, `cascade_mask_rcnn`). torchvision's
    RoIAlign is not shifted by half a cell as theirs is.

    Args:
        samples: boxes of each image that train each stage, a quarter of them objects.
    """

    def __init__(
        self,
        box_pool: MultiScaleRoIAlign,
        mask_pool: MultiScaleRoIAlign,
        *,
        channels: int,
        hidden: int,
        classes: int,
        samples: int,
    ) -> None:
        super().__init__()
        cells = int(box_pool.output_size[0])
        self.stages: Any = nn.ModuleList(
            RoIHeads(
                box_pool,
                FastRCNNConvFCHead((channels, cells, cells), [channels] * 4, [hidden], norm_layer=nn.BatchNorm2d),
                FastRCNNPredictor(hidden, classes + 1),
                fg_iou_thresh=stage.overlap,
                bg_iou_thresh=stage.overlap,
                batch_size_per_image=samples,
                positive_fraction=0.25,
                bbox_reg_weights=tuple(1 / deviation for deviation in stage.deviation),
                score_thresh=0.05,
                nms_thresh=0.5,
                detections_per_img=100,
                mask_roi_pool=mask_pool,
                mask_head=MaskRCNNHeads(channels, (channels,) * 4, 1),
                mask_predictor=MaskRCNNPredictor(channels, channels, classes + 1),
            )
            for stage in STAGES
        )

    def forward(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
        targets: list[dict[str, Tensor]] | None = None,
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """As torchvision's `RoIHeads`: detections in testing, losses in training."""
        if self.training:
            assert targets is not None
            return [], self._losses(features, proposals, image_shapes, targets)
        return self._detections(features, proposals, image_shapes), {}

    def _losses(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        shapes: list[tuple[int, int]],
        targets: list[dict[str, Tensor]],
    ) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = {}
        for i, (heads, stage) in enumerate(zip(self.stages, STAGES, strict=True)):
            boxes, matched, labels, _ = heads.select_training_samples(proposals, targets)
            logits, offsets = _judged(heads, features, boxes, shapes)
            truth = [_of(target["boxes"], which) for target, which in zip(targets, matched, strict=True)]
            found = {
                "classes": F.cross_entropy(logits, torch.cat(labels)),
                "boxes": box_loss(heads, offsets, boxes, labels, truth),
                "masks": _mask_loss(heads, features, boxes, shapes, targets, matched, labels),
            }
            losses |= {f"stage{i + 1}_{name}": stage.weight * loss for name, loss in found.items()}
            guesses = zip(labels, _by_image(logits, boxes), strict=True)
            classes = [torch.where(label > 0, label, _likeliest(logit)) for label, logit in guesses]
            moved = _moved(heads, offsets, boxes, classes, shapes)
            proposals = [box[~_copies(old, gt)] for box, old, gt in zip(moved, boxes, truth, strict=True)]
        return losses

    def _detections(
        self, features: dict[str, Tensor], proposals: list[Tensor], shapes: list[tuple[int, int]]
    ) -> list[dict[str, Tensor]]:
        logits: list[Tensor] = []
        last = self.stages[-1]
        for heads in self.stages:
            found, offsets = _judged(heads, features, proposals, shapes)
            logits.append(found)
            if heads is not last:
                classes = [_likeliest(logit) for logit in _by_image(found, proposals)]
                proposals = _moved(heads, offsets, proposals, classes, shapes)
        boxes, scores, labels = last.postprocess_detections(torch.stack(logits).mean(0), offsets, proposals, shapes)
        masks = [maskrcnn_inference(_masks(heads, features, boxes, shapes), labels) for heads in self.stages]
        return [
            {"boxes": box, "labels": label, "scores": score, "masks": torch.stack(mask).mean(0)}
            for box, label, score, *mask in zip(boxes, labels, scores, *masks, strict=True)
        ]


def box_loss(
    heads: RoIHeads, offsets: Tensor, boxes: list[Tensor], labels: list[Tensor], truth: list[Tensor]
) -> Tensor:
    """10 times the GIoU loss of the decoded boxes of objects, over the number of all boxes.

    Args:
        offsets: (n, 4 (classes + 1)) of `boxes`, with classes `labels`, 0 for none, and true boxes `truth`, by image.
    """
    classes = torch.cat(labels)
    objects = (classes > 0).nonzero()[:, 0]
    decoded = heads.box_coder.decode(offsets, boxes)[objects, classes[objects]]  # (objects, 4)
    loss = generalized_box_iou_loss(decoded, torch.cat(truth)[objects], reduction="sum")
    return GIOU_WEIGHT * loss / max(1, len(classes))  # type: ignore[no-any-return]  # of torchvision


def _judged(
    heads: Any, features: dict[str, Tensor], boxes: list[Tensor], shapes: list[tuple[int, int]]
) -> tuple[Tensor, Tensor]:
    """Logits (n, classes + 1) and offsets (n, 4 (classes + 1)) of the boxes of all images."""
    logits, offsets = heads.box_predictor(heads.box_head(heads.box_roi_pool(features, boxes, shapes)))
    return logits, offsets


def _masks(heads: Any, features: dict[str, Tensor], boxes: list[Tensor], shapes: list[tuple[int, int]]) -> Tensor:
    """Logits (n, classes + 1, 28, 28)."""
    found: Tensor = heads.mask_predictor(heads.mask_head(heads.mask_roi_pool(features, boxes, shapes)))
    return found


def _mask_loss(
    heads: Any,
    features: dict[str, Tensor],
    boxes: list[Tensor],
    shapes: list[tuple[int, int]],
    targets: list[dict[str, Tensor]],
    matched: list[Tensor],
    labels: list[Tensor],
) -> Tensor:
    objects = [label > 0 for label in labels]
    inside = [box[chosen] for box, chosen in zip(boxes, objects, strict=True)]
    which = [match[chosen] for match, chosen in zip(matched, objects, strict=True)]
    truth = [target["masks"] for target in targets], [target["labels"] for target in targets]
    logits = _masks(heads, features, inside, shapes)
    return maskrcnn_loss(logits, inside, *truth, which)  # type: ignore[no-any-return]  # of torchvision


@torch.no_grad()
def _moved(
    heads: Any, offsets: Tensor, boxes: list[Tensor], classes: list[Tensor], shapes: list[tuple[int, int]]
) -> list[Tensor]:
    """Boxes moved as the offsets of their class say, inside the images."""
    decoded = heads.box_coder.decode(offsets, boxes)  # (n, classes + 1, 4)
    every = torch.cat(classes)
    chosen = decoded[torch.arange(len(every), device=every.device), every]
    found = _by_image(chosen, boxes)
    return [clip_boxes_to_image(box, shape) for box, shape in zip(found, shapes, strict=True)]


def _copies(boxes: Tensor, truth: Tensor) -> Tensor:
    """(n,) whether a box is the true one that was put among the proposals."""
    return (boxes == truth).all(1)


def _by_image(values: Tensor, boxes: list[Tensor]) -> tuple[Tensor, ...]:
    """(n, ...) of the boxes of all images, image by image."""
    return torch.split(values, [len(box) for box in boxes])


def _likeliest(logits: Tensor) -> Tensor:
    """(n,) the class of each box, from 1, whatever the background's logit is."""
    return logits[:, 1:].argmax(1) + 1


def _of(boxes: Tensor, which: Tensor) -> Tensor:
    """The true box (n, 4) of each proposal; zeros in an image without objects."""
    return boxes[which] if len(boxes) else boxes.new_zeros(len(which), 4)
