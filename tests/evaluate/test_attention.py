import pytest
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import ResPostBlock

from polygrain.evaluate.attention import has_attention, largest_mass, last_attention, queries_and_keys
from polygrain.parts.encoder import Encoder, EncoderSettings

SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 4, "num_heads": 3}
WITHOUT_CLASS = {**SMALL, "class_token": False, "global_pool": "avg"}


def vit(name="vit_tiny_patch16_224", **arguments):
    torch.manual_seed(0)
    encoder = Encoder(EncoderSettings(name=name, arguments={**SMALL, **arguments})).eval()
    for parameter in encoder.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)  # so that attention is not flat
    return encoder


def images(height=32, width=32):
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))


def into_last_block(encoder, pixels):
    """Tokens before the last block, by running the model's own parts one after another."""
    model = encoder.model
    tokens = model.norm_pre(model._pos_embed(model.patch_embed(pixels)))
    for block in model.blocks[:-1]:
        tokens = block(tokens)
    return tokens


@pytest.mark.parametrize("arguments", [{}, {"reg_tokens": 2}, {"qk_norm": True}, WITHOUT_CLASS])
def test_every_row_sums_to_one_and_the_map_leaves_the_prefix_out(arguments):
    found = last_attention(vit(**arguments), images())
    assert (found.rows.sum(-1) - 1).abs().max() < 1e-6
    prefix = {2: 3, None: 1}[arguments.get("reg_tokens")] if arguments.get("class_token", True) else 0
    assert found.prefix == prefix
    assert found.rows.shape == (2, 3, prefix + 16)
    torch.testing.assert_close(found.maps().flatten(2), found.rows[..., prefix:])


@torch.no_grad()
@pytest.mark.parametrize("arguments", [{}, {"reg_tokens": 2}, {"qk_norm": True}])
def test_the_class_row_times_the_values_is_what_the_block_computes(arguments):
    encoder, pixels = vit(**arguments), images()
    block = encoder.model.blocks[-1]
    tokens = block.norm1(into_last_block(encoder, pixels))
    values = block.attn.qkv(tokens)[..., 2 * 48 :].unflatten(-1, (3, 16))  # (B, P + N, heads, d)
    rows = last_attention(encoder, pixels).rows
    mixed = torch.einsum("bhk,bkhd->bhd", rows, values).flatten(1)
    torch.testing.assert_close(block.attn.proj(mixed), block.attn(tokens)[:, 0], atol=1e-5, rtol=0)


@torch.no_grad()
def test_without_class_token_the_query_is_the_mean_over_patches_and_says_so():
    encoder, pixels = vit(**WITHOUT_CLASS), images()
    block = encoder.model.blocks[-1]
    query, key, _ = block.attn.qkv(block.norm1(into_last_block(encoder, pixels))).chunk(3, -1)
    expected = torch.stack(
        [
            F.softmax(query[..., h : h + 16].mean(1, keepdim=True) @ key[..., h : h + 16].mT / 4, dim=-1)[:, 0]
            for h in (0, 16, 32)
        ],
        dim=1,
    )
    found = last_attention(encoder, pixels)
    torch.testing.assert_close(found.rows, expected)
    assert found.query == "the mean query of all patches"
    assert last_attention(vit(), pixels).query == "the class token"


def test_a_crop_that_is_not_square_keeps_rows_and_columns():
    found = last_attention(vit(), images(16, 40))
    assert found.maps().shape == (2, 3, 2, 5)


@torch.no_grad()
def test_attention_made_to_meet_one_patch_meets_it():
    """Keys are zero but for one patch's, which lies along every query: nearly all attention goes there."""
    encoder, pixels = vit(**WITHOUT_CLASS), images(16, 40)
    block = encoder.model.blocks[-1]
    inputs = block.norm1(into_last_block(encoder, pixels[:1]))[0]  # (N, D)
    wanted = torch.zeros(10, 48)
    wanted[7] = 1.0
    block.attn.qkv.bias.zero_()
    block.attn.qkv.bias[:48] = 100.0  # every query is the same
    block.attn.qkv.weight[:48] = 0.0
    block.attn.qkv.weight[48:96] = torch.linalg.lstsq(inputs, wanted).solution.T
    maps = last_attention(encoder, pixels[:1]).maps()
    assert maps[0, :, 1, 2].min() > 0.99  # patch 7 of 2 rows of 5


def test_the_encoder_is_left_as_it_was():
    encoder = vit().train()
    last_attention(encoder, images())
    assert encoder.training
    assert not encoder.model.blocks[-1]._forward_pre_hooks


def test_the_largest_mass_is_the_fewest_cells_that_hold_it():
    maps = torch.tensor([[[0.5, 0.1], [0.3, 0.1]]])
    assert largest_mass(maps, 0.45).tolist() == [[[True, False], [False, False]]]
    assert largest_mass(maps, 0.6).tolist() == [[[True, False], [True, False]]]
    assert largest_mass(3 * maps, 0.85).sum() == 3
    assert largest_mass(torch.rand(4, 5, 7).square(), 1.0).all()


def test_a_network_without_attention_is_refused():
    with pytest.raises(ValueError, match="resnet18 has no attention to look at; that takes a plain ViT"):
        last_attention(Encoder(EncoderSettings(name="resnet18")), images())


@pytest.mark.parametrize(
    "name",  # two attentions side by side, attention fused with the MLP, differential attention
    ["vit_small_patch16_18x2_224", "vit_base_patch16_xp_224", "vit_dlittle_patch16_reg1_gap_256"],
)
def test_a_vit_of_another_build_is_refused_in_one_line(name):
    encoder = Encoder(EncoderSettings(name=name, arguments=SMALL))
    assert encoder.family == "vit"
    assert not has_attention(encoder)
    with pytest.raises(ValueError, match=f"{name} has no attention to look at"):
        last_attention(encoder, images())


def test_a_block_that_normalises_after_its_attention_is_not_read_as_if_it_did_before():
    assert has_attention(vit())
    assert not has_attention(vit(block_fn=ResPostBlock))


def test_queries_and_keys_are_those_of_the_block():
    encoder = vit()
    block, tokens = encoder.model.blocks[-1], torch.randn(2, 17, 48)
    query, key = queries_and_keys(block, tokens)
    expected = block.attn.qkv(block.norm1(tokens))
    torch.testing.assert_close(query.transpose(1, 2).flatten(2), expected[..., :48])
    torch.testing.assert_close(key.transpose(1, 2).flatten(2), expected[..., 48:96])
