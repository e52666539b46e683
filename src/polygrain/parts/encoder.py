"""A backbone: any timm ViT, ResNet or ConvNeXt, which turns a view into an encoding."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from timm.layers.classifier import ClassifierHead
from torch import Tensor, nn

from polygrain.parts.backbones import EncoderSettings, Family, create, family
from polygrain.parts.position import use_dino_positions
from polygrain.parts.sizes import ENCODERS
from polygrain.parts.tokens import Hides, run, shown
from polygrain.views import Encoding, View, patch_centres

__all__ = ["Encoder", "EncoderSettings", "Family", "Features", "Level"]


class Features(NamedTuple):
    """What a backbone makes of a batch of pixels."""

    pooled: Tensor  # (B, D)
    patches: Tensor  # (B, N, D) row-major, after the final norm
    unnormed: Tensor  # (B, D) mean over all tokens or positions, before the final norm
    grid: tuple[int, int]  # rows, columns of the patches
    attention: Tensor | None = None  # (B, N) of the class token in the last block, where it is watched


class Level(NamedTuple):
    """What a backbone holds at one depth."""

    cls: Tensor | None  # (B, D) class token, where there is one
    map: Tensor  # (B, D, rows, columns)


class Encoder(nn.Module):
    """A timm backbone without its classifier.

    `pooled` is what the timm model itself returns: the normed class token of a ViT (the mean over patches if it
    has none), the mean of a ResNet's last map, the normed mean of an ordinary ConvNeXt's, and the mean of the
    normed map of a VICRegL ConvNeXt (`head_norm_first`).

    `hides` says what becomes of the patches that a view hides, see `hide`; `watched` makes it tell the attention of
    its class token.

    Raises:
        ValueError: for a name timm does not know, another family, arguments the model refuses, or an image size
            that its patch does not divide.
    """

    def __init__(self, settings: EncoderSettings) -> None:
        super().__init__()
        self.settings = settings
        self.model: Any = create(settings)
        self.family = family(self.model)
        self.dim: int = self.model.num_features
        self.channels = settings.channels
        self.has_batch_norm = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in self.model.modules())
        self.model.set_grad_checkpointing(settings.checkpointing)
        if self.family == "vit":
            self.stride = int(self.model.patch_embed.feat_ratio())
            self.image_size = int(self.model.patch_embed.img_size[0])
        else:
            self.stride = int(self.model.feature_info[-1]["reduction"])
            ready_made = ENCODERS.get(settings.name)
            self.image_size = ready_made.image_size if ready_made else int(self.model.pretrained_cfg["input_size"][-1])
        self.check_size(self.image_size)
        if settings.position == "dino":
            use_dino_positions(self.model)
        self.hides: Hides = "never"
        self.watched = False
        self.register_parameter("mask_token", None)

    def hide(self, how: Hides) -> None:
        """From now on the patches that a view hides are replaced by a mask token, which is learnt, or dropped.

        Raises:
            ValueError: when this is not a ViT.
        """
        if self.family != "vit":
            raise ValueError(
                f"{self.settings.name} is a {self.family}, whose maps mix every patch with its neighbours from the "
                "first layer on, so none can be hidden; masking needs a ViT"
            )
        self.hides = how
        self.mask_token = nn.Parameter(torch.zeros(1, self.dim)) if how == "replace" else None

    def watch(self) -> None:
        """From now on encodings tell the attention of the class token.

        Raises:
            ValueError: when this is not a ViT with a class token.
        """
        if self.family != "vit" or self.model.cls_token is None:
            raise ValueError(
                f"{self.settings.name} has no class token whose attention could be watched; use a plain ViT"
            )
        self.watched = True

    def forward(self, view: View) -> Encoding:
        hidden = None if self.hides == "never" else view.hidden
        pooled, patches, unnormed, grid, attention = self.features(view.pixels, hidden)
        centres = patch_centres(view.box, view.flipped, *grid)
        if hidden is not None and self.hides == "drop":
            centres = shown(centres, hidden)
        return Encoding(view, pooled, patches, centres, unnormed, hidden, attention)

    def features(self, pixels: Tensor, hidden: Tensor | None = None) -> Features:
        """(B, C, H, W), normalised; H and W may be anything that `check_size` accepts.

        Args:
            hidden: (B, N) bool patches not to be shown, in an encoder that hides.
        """
        if self.family == "vit":
            return self._tokens(pixels, hidden)
        return self._map(pixels)

    def _tokens(self, pixels: Tensor, hidden: Tensor | None) -> Features:
        grid = (pixels.shape[2] // self.stride, pixels.shape[3] // self.stride)
        last, attention = run(self.model, pixels, hidden, self.mask_token, watched=self.watched)
        prefix = self.model.num_prefix_tokens
        unnormed = (last[:, prefix:].sum(1) + last[:, :prefix].sum(1)) / last.shape[1]
        normed = self.model.norm(last)
        patches = normed[:, prefix:]
        if isinstance(self.model.norm, nn.Identity):  # timm norms after pooling
            patches = self.final_norm(patches)
        return Features(self.model.forward_head(normed, pre_logits=True), patches, unnormed, grid, attention)

    def _map(self, pixels: Tensor) -> Features:
        if self.family == "resnet":
            normed = last = self.model.forward_features(pixels)  # (B, D, rows, columns)
        else:
            normed, (last,) = self.model.forward_intermediates(pixels, indices=1)
        patches = normed.flatten(2).transpose(1, 2)
        if self.family == "convnext" and isinstance(self.model.norm_pre, nn.Identity):  # timm norms after pooling
            patches = self.final_norm(patches)
        pooled = self.model.forward_head(normed, pre_logits=True)
        return Features(pooled, patches, last.mean((2, 3)), (last.shape[2], last.shape[3]))

    def levels(self, pixels: Tensor, indices: Sequence[int] | int = 1, *, normed: bool = True) -> list[Level]:
        """What comes out of some blocks of a ViT, or of stages of a ResNet (the stem is 0) or ConvNeXt.

        Args:
            pixels: (B, C, H, W).
            indices: which, counted from 0, or how many of the last ones.
            normed: a ViT's final norm is applied to each of them (DINO, arXiv:2104.14294, official `eval_linear.py`);
                maps of the other families are as they come.
        """
        wanted = indices if isinstance(indices, int) else list(indices)
        if self.family != "vit":
            maps = self.model.forward_intermediates(pixels, indices=wanted, intermediates_only=True)
            return [Level(None, found) for found in maps]
        levels = self.model.forward_intermediates(
            pixels, indices=wanted, norm=False, return_prefix_tokens=True, intermediates_only=True
        )
        norm: Callable[[Tensor], Tensor] = self.final_norm if normed else nn.Identity()
        maps = [level[0] if self.model.num_prefix_tokens else level for level in levels]
        maps = [norm(found.movedim(1, -1)).movedim(-1, 1) for found in maps]
        if self.model.cls_token is None:
            return [Level(None, found) for found in maps]
        return [Level(norm(prefix[:, 0]), found) for (_, prefix), found in zip(levels, maps, strict=True)]

    @property
    def depth(self) -> int:
        """How many levels there are."""
        return len(self.model.blocks) if self.family == "vit" else len(self.model.feature_info)

    def final_norm(self, vectors: Tensor) -> Tensor:
        """The backbone's last norm, over the last axis of (..., D); a ResNet has none."""
        if self.family == "resnet":
            return vectors
        if self.family == "vit":
            norm = self.model.fc_norm if isinstance(self.model.norm, nn.Identity) else self.model.norm
            return norm(vectors)  # type: ignore[no-any-return]  # of a timm model
        norm = self.model.norm_pre if isinstance(self.model.head, ClassifierHead) else self.model.head.norm
        as_maps = vectors.reshape(-1, self.dim, 1, 1)  # a ConvNeXt norms the channels of maps
        return norm(as_maps).reshape(vectors.shape)  # type: ignore[no-any-return]

    def check_size(self, size: int) -> None:
        """Whether this encoder can take crops of this size.

        Raises:
            ValueError: when the patches do not divide the crop, or it is smaller than one cell of the last map.
        """
        below = size // self.stride * self.stride
        if self.family == "vit" and size != below:
            nearest = " and ".join(str(near) for near in (below, below + self.stride) if near)
            raise ValueError(
                f"a crop of {size} px does not divide into patches of {self.stride} px; nearest sizes: {nearest}"
            )
        if size < self.stride:
            raise ValueError(f"a crop of {size} px is smaller than this network's stride; use {self.stride} px or more")
