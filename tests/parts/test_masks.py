"""Which patches are hidden: against iBOT's loader, by counting, and what an encoder makes of it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from polygrain.data.cutting import cut
from polygrain.data.draws import draw
from polygrain.data.photometric import IMAGENET
from polygrain.parts.encoder import Encoder, EncoderSettings
from polygrain.parts.masks import BlockMask, CoinMask, RandomMask, least_attended
from polygrain.parts.tokens import class_attention
from polygrain.views import Crops, View

AUTHORS = json.loads((Path(__file__).parents[1] / "references" / "dino.json").read_text())["masks"]
BLOCKS = {
    "mixed": BlockMask(side=14),
    "third": BlockMask(side=14, probability=1.0, ratio=(0.3, 0.3)),
    "small": BlockMask(side=8, probability=1.0, ratio=(0.5, 0.5)),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_hide_as_much_and_lie_where_those_of_the_authors_loader_do(name: str) -> None:
    mask, random, count = BLOCKS[name], np.random.default_rng(0), 4000
    drawn = np.stack([mask(random) for _ in range(count)]).reshape(count, mask.side, mask.side)
    shares, want = drawn.mean((1, 2)), AUTHORS[name]
    edges = np.abs(np.diff(drawn.astype(int), axis=1)).sum((1, 2))
    for found, key in ((shares, "mean"), (shares == 0, "empty"), (edges, "edges")):
        assert found.mean() == pytest.approx(want[key], abs=4 * found.std() / count**0.5 + 1e-9), key
    assert shares.std() == pytest.approx(want["std"], rel=0.1)
    for (row, column), key in (((0, 0), "corner"), ((mask.side // 2, mask.side // 2), "middle")):
        share = want[key]
        assert drawn[:, row, column].mean() == pytest.approx(share, abs=4 * (share * (1 - share) / count) ** 0.5), key


def test_blocks_never_hide_more_than_their_budget() -> None:
    random = np.random.default_rng(0)
    for ratio in (0.1, 0.25, 0.5):
        mask = BlockMask(side=14, probability=1.0, ratio=(ratio, ratio))
        assert max(mask(random).mean() for _ in range(200)) <= ratio


def test_random_masks_hide_147_of_196_patches_and_each_equally_often() -> None:
    random = np.random.default_rng(0)
    drawn = np.stack([RandomMask(patches=196)(random) for _ in range(2000)])
    assert set(drawn.sum(1)) == {147}
    assert np.abs(drawn.mean(0) - 0.75).max() < 4.5 * (0.75 * 0.25 / 2000) ** 0.5


def test_the_least_attended_are_the_lowest_of_each_image() -> None:
    attention = torch.tensor([[0.1, 0.4, 0.2, 0.3], [0.4, 0.1, 0.3, 0.2]])
    assert least_attended(attention, 0.5).tolist() == [[True, False, True, False], [False, True, False, True]]
    assert not least_attended(attention, 0.2).any() and least_attended(attention, 1.0).all()


# the loader


def crops(name: str = "large", mask: Any = None, count: int = 2) -> Crops:
    mask = RandomMask(patches=16, ratio=0.5) if mask is None else mask
    return Crops(name=name, count=count, size=32, scale=(0.5, 1.0), recipes=("mae",), mask=mask)


def hidden(requests: list[Crops], images: list[int], epoch: int = 0, seed: int = 0) -> list[Tensor]:
    draws = [draw(requests, 40, 40, seed=seed, epoch=epoch, image=image) for image in images]
    views = cut([torch.zeros(3, 40, 40, dtype=torch.uint8)] * len(images), draws, IMAGENET)["large"]
    assert all(view.hidden is not None for view in views)
    return [view.hidden for view in views if view.hidden is not None]


def test_masks_depend_on_seed_epoch_image_and_crop_alone() -> None:
    together = hidden([crops()], [3, 8, 5])
    alone = hidden([crops("other"), crops(count=3)], [8])
    assert all(torch.equal(a[1], b[0]) for a, b in zip(together, alone, strict=False))
    distinct = [together[0][0], together[0][1], together[1][0], hidden([crops()], [3], epoch=1)[0][0]]
    distinct.append(hidden([crops()], [3], seed=1)[0][0])
    assert len({tuple(mask.tolist()) for mask in distinct}) == 5


def test_a_mask_changes_nothing_else_of_a_crop() -> None:
    image = [torch.randint(0, 255, (3, 40, 40), dtype=torch.uint8)]
    masked, plain = crops(), Crops(name="large", count=2, size=32, scale=(0.5, 1.0), recipes=("mae",))
    for a, b in zip(
        *(cut(image, [draw([c], 40, 40, seed=0, epoch=0, image=2)], IMAGENET)["large"] for c in (masked, plain)),
        strict=True,
    ):
        assert torch.equal(a.pixels, b.pixels) and torch.equal(a.box, b.box) and b.hidden is None


# the encoder


def vit(**arguments: Any) -> Encoder:
    torch.manual_seed(0)
    size = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, **arguments}
    return Encoder(EncoderSettings(name="vit_small_patch16_224", position="dino", arguments=size)).eval()


def view(mask: Any, images: int = 3) -> View:
    random = np.random.default_rng(0)
    none = torch.zeros(images, dtype=torch.bool)
    box = torch.tensor([[0.0, 0.0, 32.0, 32.0]]).repeat(images, 1)
    drawn = torch.from_numpy(np.stack([mask(random) for _ in range(images)]))
    return View(torch.randn(images, 3, 32, 32), box, none, none, torch.arange(images), drawn)


def test_hidden_pixels_do_not_reach_the_encoding() -> None:
    for how in ("replace", "drop"):
        network = vit()
        network.hide(how)
        one = view(RandomMask(patches=16))
        assert one.hidden is not None
        over = one.hidden.view(-1, 1, 4, 4).float().repeat_interleave(8, 2).repeat_interleave(8, 3).bool()
        other = one._replace(pixels=torch.where(over, torch.randn_like(one.pixels), one.pixels))
        a, b = network(one), network(other)
        assert torch.equal(a.pooled, b.pooled) and torch.equal(a.patches, b.patches)
        assert not torch.allclose(a.pooled, vit()(one).pooled)


def test_the_mask_token_takes_the_place_of_a_patch_before_its_position_code() -> None:
    network = vit()
    network.hide("replace")
    assert network.mask_token is not None
    torch.nn.init.normal_(network.mask_token)
    one = view(CoinMask(patches=16, probability=0.4))
    model, hidden_ones = network.model, one.hidden
    assert hidden_ones is not None
    patches = model.patch_embed(one.pixels).flatten(1, 2)
    rows = []
    for image in range(3):
        row = [model.cls_token[0, 0] + model.pos_embed[0, 0]]
        for i in range(16):
            vector = network.mask_token[0] if hidden_ones[image, i] else patches[image, i]
            row.append(vector + model.pos_embed[0, 1 + i])
        rows.append(torch.stack(row))
    torch.testing.assert_close(network(one).pooled, model.norm(model.blocks(torch.stack(rows)))[:, 0])


def test_dropped_patches_leave_the_others_with_their_position_codes_and_centres() -> None:
    network = vit()
    network.hide("drop")
    one = view(RandomMask(patches=16))
    assert one.hidden is not None
    encoding, model = network(one), network.model
    patches = model.patch_embed(one.pixels).flatten(1, 2) + model.pos_embed[:, 1:]
    centres = [((i // 4) * 8 + 4.0, (i % 4) * 8 + 4.0) for i in range(16)]
    for image in range(3):
        kept = [i for i in range(16) if not one.hidden[image, i]]
        assert len(kept) == 4
        tokens = torch.cat([model.cls_token[0] + model.pos_embed[0, :1], patches[image, kept]])[None]
        out = model.norm(model.blocks(tokens))[0]
        torch.testing.assert_close(encoding.patches[image], out[1:])
        torch.testing.assert_close(encoding.pooled[image], out[0])
        assert encoding.centres[image].tolist() == [list(centres[i]) for i in kept]


def test_an_encoder_that_hides_nothing_ignores_masks() -> None:
    one = view(RandomMask(patches=16))
    assert torch.equal(vit()(one).pooled, vit()(one._replace(hidden=None)).pooled)


def test_the_attention_of_the_class_token_is_that_of_the_unfused_block() -> None:
    network, tokens = vit(), torch.randn(2, 17, 32)
    attention = network.model.blocks[-1].attn
    x = network.model.blocks[-1].norm1(tokens)
    query, key, _ = attention.qkv(x).reshape(2, 17, 3, 2, 16).permute(2, 0, 3, 1, 4)
    weights = torch.softmax(query @ key.transpose(-1, -2) / 4, dim=-1)  # (B, heads, 17, 17)
    torch.testing.assert_close(class_attention(network.model.blocks[-1], tokens, 1), weights[:, :, 0, 1:].mean(1))
    assert network(view(RandomMask(patches=16))).attention is None
    network.watch()
    told = network(view(RandomMask(patches=16))).attention
    assert told is not None and told.shape == (3, 16) and (told.sum(1) < 1).all()


@pytest.mark.parametrize("name", ["resnet10t", "convnext_atto"])
def test_only_vits_hide_and_are_watched(name: str) -> None:
    network = Encoder(EncoderSettings(name=name))
    with pytest.raises(ValueError, match="masking needs a ViT"):
        network.hide("replace")
    with pytest.raises(ValueError, match="no class token"):
        network.watch()
