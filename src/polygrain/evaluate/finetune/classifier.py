"""A backbone with a classifier on one of its vectors, and the optimizer of both."""

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from polygrain.evaluate.readouts import check_readout, read_out
from polygrain.evaluate.settings import Readout
from polygrain.evaluate.settings.finetune import FinetuneRecipe
from polygrain.parts.encoder import Encoder
from polygrain.parts.layer_decay import layer_groups

HIDDEN = 2048  # of the classifier with a hidden layer
INITIAL_STD = 0.02


class Classifier(nn.Module):
    """The encoder, and a head on the vector that the readout names."""

    def __init__(self, encoder: Encoder, head: nn.Module, readout: Readout) -> None:
        super().__init__()
        self.encoder, self.head, self.readout = encoder, head, readout

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, C, H, W) to logits (B, K)."""
        logits: Tensor = self.head(read_out(self.encoder, pixels, self.readout).vectors)
        return logits


def build(encoder: Encoder, classes: int, recipe: FinetuneRecipe, readout: Readout) -> Classifier:
    """A copy of the encoder, with stochastic depth, and a fresh head.

    Raises:
        ValueError: when the encoder has no such readout.
    """
    check_readout(encoder, readout)
    arguments = {**encoder.settings.arguments, "drop_path_rate": recipe.drop_path}
    copy = Encoder(dataclasses.replace(encoder.settings, pretrained=False, arguments=arguments))
    copy.model.load_state_dict(encoder.model.state_dict())
    with torch.no_grad():
        pixels = torch.zeros(1, encoder.channels, encoder.image_size, encoder.image_size)
        width = read_out(copy.eval(), pixels, readout).vectors.shape[1]
    head: nn.Module
    if recipe.head == "mlp":
        head = nn.Sequential(nn.Linear(width, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, classes))
    else:
        head = nn.Linear(width, classes)
    for part in head.modules():
        if isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=INITIAL_STD)
            nn.init.zeros_(part.bias)
            with torch.no_grad():
                part.weight.mul_(recipe.head_scale)
    return Classifier(copy, head, readout)


def pieces(images: int, at_once: int) -> int:
    """Parts, as equal as can be, in which so many images go through the network."""
    return math.ceil(images / at_once)


def batch_norm_of_pieces(encoder: Encoder, batch: int, at_once: int) -> str:
    """What batch norm takes its statistics from, where that is not the batch; such a number decides the result.

    Raises:
        ValueError: when it would be one image.
    """
    normed = any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in encoder.modules())
    if not normed or at_once >= batch:
        return ""
    if at_once < 2:
        raise ValueError(f"batch_size is {at_once}, and batch norm in the backbone needs 2 images or more at once")
    largest = math.ceil(batch / pieces(batch, at_once))
    return f"batch norm has the statistics of {largest} images at a time, not of the batch of {batch:,}"


def build_optimizer(model: Classifier, recipe: FinetuneRecipe) -> Optimizer:
    """Groups hold their peak learning rate as `lr` and as `peak`."""
    scale = recipe.train_batch_size / 256
    peak = recipe.learning_rate * scale
    head_peak = peak if recipe.head_learning_rate is None else recipe.head_learning_rate * scale
    groups: list[dict[str, Any]] = layer_groups(
        model.encoder,
        model.encoder,
        lr=peak,
        weight_decay=recipe.weight_decay,
        layer_decay=recipe.layer_decay,
        decay_positions=recipe.decay_positions,
    )
    for decays in (True, False):
        parameters = [p for p in model.head.parameters() if (p.ndim > 1) == decays]
        groups.append({"params": parameters, "lr": head_peak, "weight_decay": recipe.weight_decay if decays else 0.0})
    for group in groups:
        group["peak"] = group["lr"]
    if recipe.optimizer == "sgd":
        return SGD(groups, momentum=0.9)
    return AdamW(groups, betas=(0.9, 0.999), eps=1e-8)
